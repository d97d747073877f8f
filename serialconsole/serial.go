package serialconsole

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.bug.st/serial"
)

// serialPort makes of a serial.Port what a Console expects. A serial.Port
// that was closed may write into a file that has its descriptor by then, and
// reports its own end and the line's in the same way.
type serialPort struct {
	port   serial.Port
	lock   io.Closer
	writer deadlineWriter // writes to the line; nil where port has to

	closed atomic.Bool
	mu     sync.RWMutex // held by whoever uses port, exclusively to close it
}

var _ LineControl = (*serialPort)(nil)

// deadlineWriter is what a line is written to so that Close ends a write whose
// line stands still, which serial.Port cannot.
type deadlineWriter interface {
	io.Writer
	SetWriteDeadline(t time.Time) error
}

func openSerial(ctx context.Context, path string, l line) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lock, err := lockLine(path)
	if err != nil {
		return nil, err
	}
	mode := &serial.Mode{BaudRate: l.baud, DataBits: l.data}
	switch l.parity {
	case "odd":
		mode.Parity = serial.OddParity
	case "even":
		mode.Parity = serial.EvenParity
	}
	if l.stop == 2 {
		mode.StopBits = serial.TwoStopBits
	}
	port, err := serial.Open(path, mode)
	if err != nil {
		lock.Close()
		return nil, lineError(err)
	}
	p := &serialPort{port: port, lock: lock}
	if w, ok := lock.(deadlineWriter); ok && w.SetWriteDeadline(time.Time{}) == nil {
		p.writer = w
	}
	return p, nil
}

// lineError makes of a serial error one that errors.Is can tell.
func lineError(err error) error {
	if errors.Is(err, syscall.EIO) {
		return ErrHangup // as a pty says it
	}
	var portError *serial.PortError
	if !errors.As(err, &portError) {
		return err
	}
	switch portError.Code() {
	case serial.PortBusy:
		return ErrBusy
	case serial.PortClosed:
		return ErrHangup
	}
	return err
}

// Read implements io.Reader.
func (p *serialPort) Read(b []byte) (int, error) {
	n, err := p.port.Read(b)
	if err == nil && n == 0 && len(b) > 0 {
		return 0, p.ended(ErrHangup)
	}
	if err != nil {
		return n, p.ended(lineError(err))
	}
	return n, nil
}

func (p *serialPort) ended(err error) error {
	if p.closed.Load() {
		return ErrClosed
	}
	return err
}

// Write implements io.Writer.
func (p *serialPort) Write(b []byte) (n int, err error) {
	err = p.use(func() error {
		if p.writer != nil {
			n, err = p.writer.Write(b)
		} else {
			n, err = p.port.Write(b)
		}
		return err
	})
	return n, err
}

// use calls f unless the port is closed, and keeps it from being closed
// meanwhile.
func (p *serialPort) use(f func() error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed.Load() {
		return ErrClosed
	}
	if err := f(); err != nil {
		return p.ended(lineError(err))
	}
	return nil
}

// SetDTR implements LineControl.
func (p *serialPort) SetDTR(on bool) error {
	return p.use(func() error { return p.port.SetDTR(on) })
}

// SetRTS implements LineControl.
func (p *serialPort) SetRTS(on bool) error {
	return p.use(func() error { return p.port.SetRTS(on) })
}

// Break implements LineControl.
func (p *serialPort) Break(d time.Duration) error {
	return p.use(func() error { return p.port.Break(d) })
}

// Close implements io.Closer. A write that waits for the line ends.
func (p *serialPort) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	if p.writer != nil {
		// It ends a write that waits for the line, and cannot fail: it did not
		// when the line was opened.
		_ = p.writer.SetWriteDeadline(time.Unix(1, 0))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.port.Close(), p.lock.Close())
}
