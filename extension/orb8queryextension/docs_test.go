package orb8queryextension

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/testutil"
)

// The examples of docs/api.md do what they say, or at least are understood.
func TestExamplesOfTheDocs(t *testing.T) {
	curl, err := exec.LookPath("curl")
	testutil.Require(t, "curl", err == nil, "curl is not installed")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "api.md"))
	require.NoError(t, err)
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1), record(2), record(3)}))
	s := serve(t, component, nil)
	examples := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, examples)
	for _, example := range examples {
		script := strings.NewReplacer("127.0.0.1:9090", s.address, "curl ", curl+" ").Replace(example[1])
		out, err := exec.Command("bash", "-ec", script).CombinedOutput()
		assert.NoError(t, err, "%s\n%s", script, out)
		assert.Contains(t, string(out), `"`, script)
		if strings.Contains(script, "pageToken") {
			assert.Regexp(t, `"port": ?1\D`, string(out), "the second page has the oldest flow")
			assert.NotRegexp(t, `"port": ?3\D`, string(out))
		}
	}
}
