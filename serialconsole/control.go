package serialconsole

import (
	"errors"
	"fmt"
	"time"
)

// ErrBusy is the error of a serial line that is in use; see BusyError.
var ErrBusy = errors.New("the line is in use by another process")

// BusyError is a serial line that is in use, and by whom.
type BusyError struct {
	PID     int    // 0 if not known
	Command string // the process's command line; empty if not known
	Host    string
}

// Error implements error.
func (e *BusyError) Error() string {
	switch {
	case e.PID == 0:
		return ErrBusy.Error()
	case e.Command == "":
		return fmt.Sprintf("%v: process %d on %s", ErrBusy, e.PID, e.Host)
	}
	return fmt.Sprintf("%v: process %d on %s: %s", ErrBusy, e.PID, e.Host, e.Command)
}

// Is makes errors.Is(err, ErrBusy) true.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// LineControl is what ports of serial lines and of telnet servers with RFC 2217
// have beside reading and writing. Its methods may be called concurrently.
type LineControl interface {
	SetDTR(on bool) error
	SetRTS(on bool) error
	Break(d time.Duration) error // holds the line for so long, and blocks until then
}
