// Package deploy holds what runs gatehouse elsewhere. It owns no code but this
// test: the composition loads and keeps its promises, the image's steps work on
// any machine, and Prometheus takes its files.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gatehouse/gatehouse/loadtest/servers"
	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/routes"
)

// project loads docker-compose.yml from a copy of the files that it names, with
// secrets made by the script.
func project(t *testing.T) (*types.Project, string) {
	t.Helper()
	dir := t.TempDir()
	run(t, "cp", "-R", "../docker-compose.yml", "../configs", dir)
	run(t, "mkdir", filepath.Join(dir, "deploy"))
	run(t, "cp", "compose-secrets", filepath.Join(dir, "deploy"))
	run(t, filepath.Join(dir, "deploy", "compose-secrets"))
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")}, cli.WithWorkingDirectory(dir))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p, dir
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestCompositionIsPinnedWatchedAndConfined(t *testing.T) {
	p, dir := project(t)
	if p.Name != "gatehouse" {
		t.Errorf("name %q", p.Name)
	}
	want := []string{"backend-1", "backend-2", "consul", "gateway-1", "gateway-2", "grafana", "postgres", "prometheus", "redis"}
	if got := p.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	version := regexp.MustCompile(`:v?\d+\.\d+\.\d+(-[a-z]+)?(@sha256:[0-9a-f]{64})?$|:\d+\.\d+-alpine$`)
	for name, s := range p.Services {
		if s.Build == nil && !version.MatchString(s.Image) {
			t.Errorf("%s: the image %s is not pinned", name, s.Image)
		}
		if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 || s.HealthCheck.Disable {
			t.Errorf("%s has no health check", name)
		}
		if s.Privileged || len(s.CapAdd) > 0 || s.NetworkMode == "host" || s.Pid == "host" || len(s.Devices) > 0 {
			t.Errorf("%s is privileged", name)
		}
		if s.Build != nil && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"})) {
			t.Errorf("%s may write or keeps capabilities", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q, not on loopback", name, port.Published, port.HostIP)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil || !strings.HasPrefix(v.Source, dir) || !v.ReadOnly {
					t.Errorf("%s mounts %s: %v", name, v.Source, err)
				}
			}
		}
		for other, d := range s.DependsOn {
			if d.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s does not wait until %s is healthy", name, other)
			}
		}
	}
	for name, port := range map[string]string{"gateway-1": "8081", "gateway-2": "8082"} {
		if ports := p.Services[name].Ports; len(ports) == 0 || ports[0].Published != port || ports[0].Target != 8080 {
			t.Errorf("%s publishes %v", name, ports)
		}
	}
}

func TestSecretsAreMadeOnceAndForTheirOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	run(t, "./compose-secrets", dir)
	before := run(t, "cat", filepath.Join(dir, "gateway.env"))
	run(t, "./compose-secrets", dir)
	if run(t, "cat", filepath.Join(dir, "gateway.env")) != before {
		t.Error("the second run changed the secrets")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), info.Mode(), err)
		}
	}
	for line := range strings.Lines(before) {
		if _, value, _ := strings.Cut(strings.TrimSpace(line), "="); len(value) < 32 {
			t.Errorf("short secret in %s", line)
		}
	}
	ignored, err := os.ReadFile(".gitignore")
	if err != nil || !strings.Contains(string(ignored), "/secrets/") {
		t.Errorf("secrets could be committed: %v", err)
	}
}

func TestConfigurationOfTheCompositionLoads(t *testing.T) {
	p, dir := project(t)
	env := p.Services["gateway-1"].Environment
	file, err := routes.Load(filepath.Join(dir, "configs/compose/gatehouse.yaml"), routes.Options{
		Plugins: all.Names(),
		Env: func(name string) (string, bool) {
			if v := env[name]; v != nil {
				return *v, true
			}
			return "", false
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range file.Warnings {
		t.Errorf("warning: %v", w)
	}
}

func TestPrometheusTakesItsFiles(t *testing.T) {
	promtool := servers.Need(t, "promtool (package prometheus)", "promtool")
	out := run(t, promtool, "check", "config", "../configs/prometheus/prometheus.yml")
	if !strings.Contains(out, "SUCCESS: 17 rules found") {
		t.Errorf("%s", out)
	}
}

// dockerSteps are the RUN lines of the Dockerfile.
func dockerSteps(t *testing.T) (steps []string) {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if step, ok := strings.CutPrefix(line, "RUN "); ok {
			steps = append(steps, strings.TrimSpace(step))
		}
	}
	return steps
}

func TestImageStepsAreThoseOfTheDockerfile(t *testing.T) {
	text, err := os.ReadFile("image-steps")
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for line := range strings.Lines(string(text)) {
		if step, ok := strings.CutPrefix(line, "step '"); ok {
			step = strings.TrimSuffix(strings.TrimSpace(step), "'")
			steps = append(steps, strings.ReplaceAll(step, `'\''`, `'`))
		}
	}
	if want := dockerSteps(t); !slices.Equal(steps, want) || len(want) < 3 {
		t.Errorf("image-steps has\n%s\nand the Dockerfile\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
	}
}

// The image's tree, made without a container engine, is complete: its only
// program starts in it as the image's user, and takes the composition's
// configuration.
func TestImageStepsMakeAnImageThatStarts(t *testing.T) {
	root := filepath.Join(t.TempDir(), "rootfs")
	if out := run(t, "./image-steps", root); !strings.Contains(out, "healthcheck") {
		t.Errorf("no help came out of it:\n%s", out)
	}
	if os.Getuid() != 0 {
		return // only root may change the root folder
	}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	_, dir := project(t)
	run(t, "cp", filepath.Join(dir, "configs/compose/gatehouse.yaml"), filepath.Join(root, "etc/gatehouse"))
	secrets, err := os.ReadFile(filepath.Join(dir, "deploy/secrets/gateway.env"))
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command("/usr/bin/gatehouse", "check", "-c", "/etc/gatehouse/gatehouse.yaml")
	check.Env = strings.Split(strings.TrimSpace(string(secrets)), "\n")
	check.Dir = "/"
	check.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 10001, Gid: 10001}}
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("check in the image: %v\n%s", err, out)
	}
}
