//go:build unix

package serialconsole

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockLine takes the line's locks: flock, which the kernel releases with the
// process, and the UUCP lock file that picocom and minicom honour. The system's
// own exclusive mode does not keep root out.
func lockLine(path string) (io.Closer, error) {
	// Non-blocking: to open a line may otherwise wait for carrier.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, busy(path, 0)
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
			return nil, busy(path, 0)
		}
		return nil, os.NewSyscallError("flock", err)
	}
	file, err := lockUUCP(path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return lineLock{f, file}, nil
}

// lineLock is a line, open and under flock, and its lock file, empty where there
// is none. It can be written to, and such a write ends when its deadline passes.
type lineLock struct {
	*os.File
	file string
}

func (l lineLock) Close() error {
	var err error
	if l.file != "" {
		err = os.Remove(l.file)
	}
	return errors.Join(err, l.File.Close())
}

// uucpDir is where UUCP lock files are (Filesystem Hierarchy Standard 3.0
// section 5.9).
const uucpDir = "/var/lock"

// lockUUCP creates the lock file of a line and returns its path. Where this
// user may not create one, there is none: flock has to do.
func lockUUCP(path string) (string, error) {
	device, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	// As picocom spells it: /dev/pts/3 is LCK..pts_3.
	name := filepath.Join(uucpDir, "LCK.."+strings.ReplaceAll(strings.TrimPrefix(device, "/dev/"), "/", "_"))
	for range 2 {
		// It must have its content when it appears: write it, then link it.
		temporary, err := os.CreateTemp(uucpDir, "LTMP.")
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) {
			if pid := uucpHolder(name); pid != 0 {
				return "", busy(path, pid)
			}
			return "", nil
		}
		if err != nil {
			return "", err
		}
		_, err = fmt.Fprintf(temporary, "%10d\n", os.Getpid())
		err = errors.Join(err, temporary.Chmod(0o644), temporary.Close())
		if err == nil {
			err = os.Link(temporary.Name(), name)
		}
		if err := os.Remove(temporary.Name()); err != nil {
			return "", err
		}
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if pid := uucpHolder(name); pid != 0 {
			return "", busy(path, pid)
		}
		// Its process has ended without removing it.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", busy(path, uucpHolder(name))
}

// uucpHolder returns the living process that a lock file names, else 0.
func uucpHolder(name string) int {
	content, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	// Some write more behind the process id.
	words := strings.Fields(string(content))
	if len(words) == 0 {
		return 0
	}
	pid, err := strconv.Atoi(words[0])
	if err != nil || pid <= 0 {
		return 0
	}
	// A lock of this process is none: it has the flock as well.
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) || pid == os.Getpid() {
		return 0
	}
	return pid
}

// busy says who has a line, as far as that can be found out.
func busy(path string, pid int) error {
	e := &BusyError{PID: pid}
	e.Host, _ = os.Hostname()
	if device, err := filepath.EvalSymlinks(path); err == nil && pid == 0 {
		e.PID = userOf(device)
	}
	if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", e.PID)); err == nil && e.PID != 0 {
		e.Command = strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))
	}
	return e
}

// userOf finds a process that has a device open, where there is a /proc and
// this user may look.
func userOf(device string) int {
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && target == device {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2]) // as the pattern has it
			return pid
		}
	}
	return 0
}
