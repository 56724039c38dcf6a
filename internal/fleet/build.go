package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Build compiles the program of this module into a temporary directory and returns its path,
// that directory, for everything else, and what removes it. flags go to go build.
func Build(ctx context.Context, flags ...string) (binary, dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "understudy-built-")
	if err != nil {
		return "", "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	binary = filepath.Join(dir, "understudy")
	command := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-o", binary}, flags, []string{"understudy/cmd/understudy"})...)
	if output, err := command.CombinedOutput(); err != nil {
		remove()
		return "", "", nil, fmt.Errorf("build understudy: %w\n%s", err, output)
	}
	return binary, dir, remove, nil
}

// WhileBuilt builds the program, has it used, and removes it: for a TestMain, whose exit status
// it returns.
func WhileBuilt(use func(binary, dir string) (status int)) (status int) {
	binary, dir, remove, err := Build(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	return use(binary, dir)
}
