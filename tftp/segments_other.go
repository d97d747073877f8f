//go:build !linux

package tftp

const (
	maxSegments = 1
	maxTogether = 0
)

// withSegments would let a socket send many datagrams in one call.
func withSegments(s socket) socket { return s }
