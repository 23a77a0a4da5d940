//go:build linux

package testbed

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/orb8/orb8/testbed/internal/collector"
)

const module = "github.com/orb8/orb8"

// manifest is builder-config.yaml, as far as it says what is in the binary.
type manifest struct {
	Dist                                                                struct{ Name, Version, Description string }
	Receivers, Processors, Exporters, Connectors, Extensions, Providers []struct{ GoMod, Import string }
}

// built is what `orb8-collector components` says is in the binary.
type built struct {
	BuildInfo                                                struct{ Command, Version, Description string }
	Receivers, Processors, Exporters, Connectors, Extensions []struct{ Name, Module string }
	Providers                                                []struct{ Module string }
}

func TestBinaryHoldsWhatTheManifestSays(t *testing.T) {
	var want manifest
	readYAML(t, filepath.Join(collector.Root(), "builder-config.yaml"), &want)
	out, err := exec.Command(collector.Binary(t, "orb8-collector"), "components").Output()
	require.NoError(t, err)
	var got built
	require.NoError(t, yaml.Unmarshal(out, &got))

	assert.Equal(t, want.Dist.Name, got.BuildInfo.Command)
	assert.Equal(t, want.Dist.Version, got.BuildInfo.Version)
	assert.Equal(t, want.Dist.Description, got.BuildInfo.Description)
	for _, kind := range []struct {
		name     string
		manifest []struct{ GoMod, Import string }
		built    []struct{ Name, Module string }
	}{
		{"receivers", want.Receivers, got.Receivers},
		{"processors", want.Processors, got.Processors},
		{"exporters", want.Exporters, got.Exporters},
		{"connectors", want.Connectors, got.Connectors},
		{"extensions", want.Extensions, got.Extensions},
	} {
		var inManifest, inBinary []string
		for _, c := range kind.manifest {
			inManifest = append(inManifest, manifestName(t, c.GoMod, c.Import))
		}
		for _, c := range kind.built {
			if strings.HasPrefix(c.Module, module+" ") {
				c.Module += " " + c.Name
			}
			inBinary = append(inBinary, c.Module)
		}
		assert.ElementsMatch(t, inManifest, inBinary, kind.name)
	}
	var wantProviders, gotProviders []string
	for _, p := range want.Providers {
		wantProviders = append(wantProviders, p.GoMod)
	}
	for _, p := range got.Providers {
		gotProviders = append(gotProviders, p.Module)
	}
	assert.ElementsMatch(t, wantProviders, gotProviders, "providers")
}

// manifestName is the module of a component and, where many components share orb8's own, the type that its metadata
// declares.
func manifestName(t *testing.T, goMod, importPath string) string {
	folder, ours := strings.CutPrefix(importPath, module+"/")
	if !ours {
		return goMod
	}
	var metadata struct{ Type string }
	readYAML(t, filepath.Join(collector.Root(), folder, "metadata.yaml"), &metadata)
	return goMod + " " + metadata.Type
}

func readYAML(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, v))
}
