//go:build linux

package deploy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// variants are what users name to `kubectl apply -k`.
var variants = []string{"base", "overlays/gpu", "overlays/minimal", "overlays/persistent", "overlays/tls"}

const namespace = "orb8-system"

// kubectl runs kubectl and returns what it wrote.
func kubectl(t *testing.T, p *cluster.ControlPlane, stdin []byte, args ...string) string {
	t.Helper()
	cmd, err := p.Kubectl(t.Context(), args...)
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	require.NoError(t, cmd.Run(), "kubectl %v\n%s", args, &stderr)
	return stdout.String()
}

func render(t *testing.T, p *cluster.ControlPlane, variant string) []byte {
	t.Helper()
	return []byte(kubectl(t, p, nil, "kustomize", filepath.Join(collector.Root(), "deploy", variant)))
}

// objects parses manifests, and fails where a field is not known.
func objects(t *testing.T, manifests []byte) (all []runtime.Object) {
	t.Helper()
	for documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(manifests))); ; {
		buffer := make([]byte, 1<<20)
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(buffer[:n], nil, nil)
		require.NoError(t, err)
		all = append(all, o)
	}
}

func podTemplates(all []runtime.Object) map[string]*corev1.PodTemplateSpec {
	templates := map[string]*corev1.PodTemplateSpec{}
	for _, o := range all {
		switch o := o.(type) {
		case *appsv1.DaemonSet:
			templates[o.Name] = &o.Spec.Template
		case *appsv1.Deployment:
			templates[o.Name] = &o.Spec.Template
		}
	}
	return templates
}

func TestOnAnAPIServer(t *testing.T) {
	p := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	kubectl(t, p, nil, "create", "namespace", namespace)
	t.Run("manifests", func(t *testing.T) { testManifests(t, p) })
	t.Run("pod security standards", func(t *testing.T) { testPodSecurityStandards(t, p) })
	t.Run("service accounts only read", func(t *testing.T) { testServiceAccountsOnlyRead(t, p) })
}

func testManifests(t *testing.T, p *cluster.ControlPlane) {
	for _, variant := range variants {
		t.Run(filepath.Base(variant), func(t *testing.T) {
			manifests := render(t, p, variant)
			all := objects(t, manifests)

			t.Run("the API server takes them", func(t *testing.T) {
				kubectl(t, p, manifests, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-")
			})
			for name, template := range podTemplates(all) {
				t.Run(name+" has no more than it needs", func(t *testing.T) { checkPrivileges(t, variant, name, template) })
			}
			t.Run("configurations are valid", func(t *testing.T) { checkConfigs(t, all) })
		})
	}
}

func checkPrivileges(t *testing.T, variant, name string, template *corev1.PodTemplateSpec) {
	pod := template.Spec
	// Who uses a GPU is told by process ids, and with which library is seen in the process.
	gpus := variant == "overlays/gpu" && name == "orb8-agent"
	capabilities, paths := []corev1.Capability{"BPF", "PERFMON", "NET_ADMIN"}, []string{"/sys/fs/cgroup", "/var/lib/orb8"}
	if gpus {
		capabilities, paths = append(capabilities, "SYS_PTRACE"), append(paths, "/var/lib/kubelet/pod-resources")
	}
	assert.Equal(t, gpus, pod.HostPID)
	assert.False(t, pod.HostNetwork || pod.HostIPC, "namespaces of the host")
	require.NotNil(t, pod.SecurityContext)
	assert.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	var hostPaths []string
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			hostPaths = append(hostPaths, v.HostPath.Path)
		}
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		require.NotNil(t, c.SecurityContext)
		s := c.SecurityContext
		assert.True(t, s.Privileged == nil || !*s.Privileged, "privileged")
		assert.False(t, *s.AllowPrivilegeEscalation)
		assert.True(t, *s.ReadOnlyRootFilesystem)
		assert.Equal(t, []corev1.Capability{"ALL"}, s.Capabilities.Drop)
		assert.NotEmpty(t, c.Resources.Limits.Memory())
		switch name {
		case "orb8-agent":
			assert.ElementsMatch(t, capabilities, s.Capabilities.Add)
		default:
			assert.Empty(t, s.Capabilities.Add)
			assert.Empty(t, hostPaths)
			assert.True(t, *pod.SecurityContext.RunAsNonRoot)
		}
		for _, m := range c.VolumeMounts {
			if m.Name == "cgroup" || m.Name == "pod-resources" {
				assert.True(t, m.ReadOnly)
			}
		}
	}
	assert.Subset(t, paths, hostPaths)
}

// checkConfigs has the collector validate what each container is started with, put together from the ConfigMaps as the
// kubelet does it.
func checkConfigs(t *testing.T, all []runtime.Object) {
	configs := map[string]map[string]string{}
	for _, o := range all {
		if m, ok := o.(*corev1.ConfigMap); ok {
			configs[m.Name] = m.Data
		}
	}
	for name, template := range podTemplates(all) {
		root := t.TempDir()
		mounts := map[string]string{}
		container := template.Spec.Containers[0]
		for _, m := range container.VolumeMounts {
			mounts[m.Name] = m.MountPath
		}
		for _, v := range template.Spec.Volumes {
			for _, from := range configMapsOf(v) {
				require.Contains(t, configs, from, "volume %s of %s", v.Name, name)
				for file, text := range configs[from] {
					path := filepath.Join(root, mounts[v.Name], file)
					require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
					require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
				}
			}
		}
		args := []string{"validate"}
		for _, arg := range container.Args {
			if strings.HasPrefix(arg, "/") {
				arg = filepath.Join(root, arg)
			}
			args = append(args, arg)
		}
		cmd := exec.Command(collector.Binary(t, "orb8-collector"), args...)
		cmd.Env = []string{"NODE_NAME=node1"}
		for _, e := range container.Env {
			if e.ValueFrom == nil {
				cmd.Env = append(cmd.Env, e.Name+"="+strings.ReplaceAll(e.Value, "$(POD_IP)", "10.0.0.1"))
			}
		}
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", name, out)
	}
}

func configMapsOf(v corev1.Volume) (names []string) {
	if v.ConfigMap != nil {
		names = append(names, v.ConfigMap.Name)
	}
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				names = append(names, s.ConfigMap.Name)
			}
		}
	}
	return names
}

// The gateway would be let into a namespace that asks for the strictest of Kubernetes' standards; the agent would not, and no
// manifest could change that.
func testPodSecurityStandards(t *testing.T, p *cluster.ControlPlane) {
	client, err := p.Client()
	require.NoError(t, err)
	for _, standard := range []string{"restricted", "privileged"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: standard, Labels: map[string]string{"pod-security.kubernetes.io/enforce": standard},
		}}
		_, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	templates := podTemplates(objects(t, render(t, p, "base")))
	create := func(name, standard string) error {
		template := templates[name]
		require.NotNil(t, template, name)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *template.Spec.DeepCopy()}
		pod.Spec.PriorityClassName = "" // controllers make those
		_, err := client.CoreV1().Pods(standard).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	assert.NoError(t, create("orb8-gateway", "restricted"))
	assert.NoError(t, create("orb8-agent", "privileged"))
	assert.ErrorContains(t, create("orb8-agent", "restricted"), "hostPath")
}

// The API server itself says what the service accounts may do.
func testServiceAccountsOnlyRead(t *testing.T, p *cluster.ControlPlane) {
	kubectl(t, p, render(t, p, "base"), "apply", "--server-side", "-f", "-")
	client, err := p.Client()
	require.NoError(t, err)
	may := func(account, group, resource, verb string) bool {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:   "system:serviceaccount:" + namespace + ":" + account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: group, Resource: resource, Verb: verb, Namespace: metav1.NamespaceAll,
			},
		}}
		review, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
		require.NoError(t, err)
		return review.Status.Allowed
	}
	reads := map[string][][2]string{
		"orb8-agent":   {{"", "pods"}, {"", "nodes"}},
		"orb8-gateway": {{"", "pods"}, {"", "nodes"}, {"", "services"}, {"discovery.k8s.io", "endpointslices"}},
	}
	all := [][2]string{
		{"", "pods"}, {"", "nodes"}, {"", "services"}, {"discovery.k8s.io", "endpointslices"},
		{"", "secrets"}, {"", "configmaps"}, {"", "pods/exec"}, {"", "nodes/proxy"}, {"apps", "deployments"}, {"*", "*"},
	}
	for account, allowed := range reads {
		for _, r := range all {
			for _, verb := range []string{"get", "list", "watch"} {
				assert.Equal(t, slices.Contains(allowed, r), may(account, r[0], r[1], verb), "%s: %s %s", account, verb, r)
			}
			for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection", "*"} {
				assert.False(t, may(account, r[0], r[1], verb), "%s: %s %s", account, verb, r)
			}
		}
	}
	// Which GPU a claim is of.
	claimed := [2]string{"resource.k8s.io", "resourceslices"}
	assert.False(t, may("orb8-agent", claimed[0], claimed[1], "list"))
	kubectl(t, p, render(t, p, "overlays/gpu"), "apply", "--server-side", "-f", "-")
	for verb, allowed := range map[string]bool{"get": true, "list": true, "watch": false, "create": false, "update": false, "delete": false} {
		assert.Equal(t, allowed, may("orb8-agent", claimed[0], claimed[1], verb), verb)
		assert.False(t, may("orb8-gateway", claimed[0], claimed[1], verb), verb)
	}
}
