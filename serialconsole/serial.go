package serialconsole

import (
	"context"
	"errors"
	"io"
	"sync"

	"go.bug.st/serial"
)

// ErrBusy is the error of a serial line that is in use.
var ErrBusy = errors.New("the line is in use by another process")

// serialPort makes of a serial.Port what a Console expects. A serial.Port
// that was closed may write into a file that has its descriptor by then, and
// reports its own end and the line's in the same way.
type serialPort struct {
	port serial.Port
	lock io.Closer

	mu     sync.RWMutex // held by writes; guards closed
	closed bool
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
	return &serialPort{port: port, lock: lock}, nil
}

// lineError makes of a serial error one that errors.Is can tell.
func lineError(err error) error {
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
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return ErrClosed
	}
	return err
}

// Write implements io.Writer.
func (p *serialPort) Write(b []byte) (int, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return 0, ErrClosed
	}
	n, err := p.port.Write(b)
	if err != nil {
		return n, lineError(err)
	}
	return n, nil
}

// Close implements io.Closer.
func (p *serialPort) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return errors.Join(p.port.Close(), p.lock.Close())
}
