//go:build !unix

package tftp_test

import "os"

// mkfifo stands in with a directory, which is refused as well.
func mkfifo(name string) error { return os.Mkdir(name, 0o700) }
