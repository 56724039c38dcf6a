// Package foreign gets other people's programs ready for the interoperability tests: Apache's
// servers and tools from Maven's central repository, Python and Node clients from theirs, kcat
// from the system's packages. It installs nothing system-wide: jars and packages go to the
// user's cache folder, once, under a lock.
//
// A test asks for what it needs by name; where the runtime itself (java and mvn, python3,
// node and npm, kcat) is missing, the test is skipped and the skip names it.
package foreign

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// installTimeout bounds one fetch from a registry.
const installTimeout = 10 * time.Minute

// need skips the test unless all programs are on the path.
func need(t testing.TB, what string, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %s is not installed", what, program)
		}
	}
}

// cached returns a folder that install filled; see installed.
func cached(t testing.TB, kind, key string, install func(dir string) error) string {
	t.Helper()
	dir, err := installed(kind, key, install)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// installed returns a folder that install filled, running install if nobody has yet. The key
// changes with everything that decides the content.
func installed(kind, key string, install func(dir string) error) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w", err)
	}
	base = filepath.Join(base, "understudy-interop")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(key))
	dir := filepath.Join(base, kind+"-"+hex.EncodeToString(sum[:6]))
	complete := filepath.Join(dir, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	unlock, err := lock(filepath.Join(base, kind+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := install(dir); err != nil {
		return "", fmt.Errorf("install %s: %w", kind, err)
	}
	return dir, os.WriteFile(complete, nil, 0o644)
}

// lock holds a file lock, so that test packages that run side by side do not install twice.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

func run(dir, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, output)
	}
	return nil
}

// Kcat returns the path of kcat.
func Kcat(t testing.TB) string {
	t.Helper()
	need(t, "kcat", "kcat")
	return "kcat"
}

// Python returns an interpreter that can import the packages, given as pip requirements.
func Python(t testing.TB, requirements ...string) string {
	t.Helper()
	need(t, "python3 with venv", "python3")
	dir := cached(t, "python", strings.Join(requirements, " "), func(dir string) error {
		if err := run(dir, "python3", "-m", "venv", "env"); err != nil {
			return err
		}
		args := append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check"}, requirements...)
		return run(dir, filepath.Join(dir, "env", "bin", "python"), args...)
	})
	return filepath.Join(dir, "env", "bin", "python")
}

// Node returns a folder in which `node script.js` finds the packages (name@version).
func Node(t testing.TB, packages ...string) string {
	t.Helper()
	need(t, "node and npm", "node", "npm")
	return cached(t, "node", strings.Join(packages, " "), func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private":true}`), 0o644); err != nil {
			return err
		}
		args := append([]string{"install", "--silent", "--no-audit", "--no-fund"}, packages...)
		return run(dir, "npm", args...)
	})
}
