package zookeeper

import (
	"context"
	"os/exec"
	"testing"

	"understudy/interop/foreign"
)

func TestKazoo(t *testing.T) {
	python := foreign.Python(t, "kazoo==2.11.0")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report(t, exec.CommandContext(ctx, python, "testdata/kazoo_recipes.py", server(t)))
}
