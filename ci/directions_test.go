// Package ci_test holds what the pipeline checks of the tree as a whole.
package ci_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/boardspec/boardspec/"

// The packages form layers. What a package may not depend on, directly or
// through others, is what would make it useless on its own: a TFTP server that
// brings a test framework, a bench that brings a container engine's client.
func TestPackagesDependInOneDirection(t *testing.T) {
	const (
		ginkgo     = "github.com/onsi/"
		containers = "github.com/testcontainers/"
		moby       = "github.com/moby/"
		gvisor     = "gvisor.dev/"
		serial     = "go.bug.st/serial"
	)
	for _, test := range []struct {
		pkg      string
		mustNot  []string
		ownOnly  []string // the packages of this module that it may use
		ownIsAll bool
	}{
		{pkg: "tftp", mustNot: []string{ginkgo, containers, moby, gvisor, serial}},
		{pkg: "serialconsole", mustNot: []string{ginkgo, containers, moby, gvisor}},
		{pkg: "serialconsole/uboot", mustNot: []string{ginkgo, containers, moby, gvisor}, ownOnly: []string{"serialconsole"}},
		{pkg: "serialconsole/linux", mustNot: []string{ginkgo, containers, moby, gvisor}, ownOnly: []string{"serialconsole", "serialconsole/uboot"}},
		{pkg: "fixture/virtual/cable", mustNot: []string{ginkgo, containers, moby, serial}},
		{pkg: "fixture/virtual", mustNot: []string{ginkgo, serial}, ownOnly: []string{"fixture/virtual/cable", "ci/image"}},
		{pkg: "fixture", mustNot: []string{containers, moby, gvisor}, ownOnly: []string{"tftp", "serialconsole", "serialconsole/uboot", "serialconsole/linux"}},
		{pkg: "fixture/bench", ownIsAll: true},
		{pkg: "suites", mustNot: []string{containers, moby, gvisor}, ownOnly: []string{"fixture", "tftp", "serialconsole", "serialconsole/uboot", "serialconsole/linux"}},
	} {
		t.Run(test.pkg, func(t *testing.T) {
			for _, dep := range dependencies(t, test.pkg) {
				for _, bad := range test.mustNot {
					if strings.HasPrefix(dep, bad) {
						t.Errorf("%s must not depend on %s", test.pkg, dep)
					}
				}
				own, isOwn := strings.CutPrefix(dep, module)
				if isOwn && own != test.pkg && !test.ownIsAll && !slices.Contains(test.ownOnly, own) {
					t.Errorf("%s must not depend on our %s", test.pkg, own)
				}
			}
		})
	}
}

func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	list := exec.Command("go", "list", "-deps", module+pkg)
	output, err := list.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(output))
}
