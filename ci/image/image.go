// Package image holds what builds the container that fixture/virtual starts,
// so that a suite in another module can build it as well.
package image

import "embed"

// Context is the build context: the Dockerfile, which says what its build
// arguments are, and the scripts of its stages. Embedded files have no mode; the
// scripts must be executable.
//
//go:embed Dockerfile qemu u-boot
var Context embed.FS
