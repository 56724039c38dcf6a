// Package house holds the checks that keep the repository in order. Each failure names the
// remedy.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type goPackage struct {
	ImportPath string
	Doc        string
	Dir        string
	Imports    []string
	GoFiles    []string
	Standard   bool
	Module     *struct{ Path, Version, Dir string }
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-json=ImportPath,Doc,Dir,Imports,GoFiles,Standard,Module"}, args...)...)
	command.Dir = filepath.Join("..", "..")
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var packages []goPackage
	decoder := json.NewDecoder(bytes.NewReader(output))
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestEveryPackageHasADocComment(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no doc comment: say what it owns, what goes in and out, and what it does not do", p.ImportPath)
		}
	}
}

const (
	coordination = "understudy/internal/coordination/"
	streaming    = "understudy/internal/streaming/"
)

// The packages that decide and do nothing else: no network, disk, clock, goroutine or global
// chance (DESIGN 6). What they may not import, and why.
var deterministic = []string{
	coordination + "jute", coordination + "znode", coordination + "session", coordination + "watch",
	streaming + "cluster", streaming + "record", streaming + "partition", streaming + "group/classic",
}

var impure = []string{"net", "os", "math/rand", "math/rand/v2", "os/exec", "syscall", "time/tzdata", "log/slog"}

func TestDependenciesPointInwards(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			if reason := forbidden(p.ImportPath, imported); reason != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, reason)
			}
		}
	}
}

func forbidden(importer, imported string) string {
	switch {
	case strings.HasPrefix(importer, coordination) && strings.HasPrefix(imported, streaming):
		return "the coordination half knows nothing of Kafka"
	case strings.HasPrefix(importer, streaming) && strings.HasPrefix(imported, coordination) &&
		imported != coordination+"zkclient" && imported != coordination+"jute":
		return "the streaming half reaches the coordinator through zkclient alone (jute holds its error codes and Stat)"
	case strings.HasPrefix(importer, "understudy/internal/") && strings.HasPrefix(imported, "understudy/cmd"):
		return "cmd wires; nothing depends on it"
	case slices.Contains(deterministic, importer) && slices.Contains(impure, imported):
		return "this package is deterministic: time, chance, disk and network are handed in by its shell"
	}
	return ""
}

// The licences of the modules that end up in the program, by a phrase of their text. Others
// need a decision: add the module's licence here, or do without the module.
var licences = map[string]string{
	"MIT":        "Permission is hereby granted, free of charge, to any person obtaining a copy",
	"BSD":        "Redistribution and use in source and binary forms, with or without",
	"Apache-2.0": "Apache License",
	"ISC":        "Permission to use, copy, modify, and/or distribute this software for any",
}

func TestDependenciesHaveKnownLicences(t *testing.T) {
	checked := map[string]bool{}
	for _, p := range list(t, "-deps", "./cmd/understudy") {
		if p.Standard || p.Module == nil || p.Module.Path == "understudy" || checked[p.Module.Path] {
			continue
		}
		checked[p.Module.Path] = true
		if name := licenceOf(p.Module.Dir); name == "" {
			t.Errorf("%s %s has no licence that is known here: see internal/house", p.Module.Path, p.Module.Version)
		} else {
			t.Logf("%-12s %s", name, p.Module.Path)
		}
	}
}

func licenceOf(dir string) string {
	for _, file := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			continue
		}
		folded := strings.Join(strings.Fields(string(text)), " ")
		for _, name := range []string{"Apache-2.0", "MIT", "BSD", "ISC"} {
			if strings.Contains(folded, licences[name]) {
				return name
			}
		}
	}
	return ""
}
