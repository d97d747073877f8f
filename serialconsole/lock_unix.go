//go:build unix

package serialconsole

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// lockLine takes the line's lock, which the kernel releases with the process.
// The system's own exclusive mode does not keep root out.
func lockLine(path string) (io.Closer, error) {
	// Non-blocking: to open a line may otherwise wait for carrier.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, ErrBusy
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; ls /dev/serial/by-id names the lines of USB adapters", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; to be allowed: sudo usermod -aG dialout $USER, then log in again", err)
	case err != nil:
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, os.NewSyscallError("flock", err)
	}
	return f, nil
}
