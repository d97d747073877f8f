// Package image holds the Dockerfile of the container that fixture/virtual
// starts, so that a suite in another module can build it as well.
package image

import _ "embed"

// Dockerfile builds the image. Its build argument BASE names the Debian image
// to start from.
//
//go:embed Dockerfile
var Dockerfile string
