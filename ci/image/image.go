// Package image holds what builds the container that fixture/virtual starts,
// so that a suite in another module can build it as well.
package image

import (
	"embed"
	"io/fs"
)

//go:embed Dockerfile qemu u-boot
var files embed.FS

// Context is the build context: the Dockerfile, which says what its build
// arguments are, and the scripts of its stages. Embedded files have no mode; the
// scripts must be executable.
var Context fs.FS = files
