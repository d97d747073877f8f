package serialconsole

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// ErrClosed is the error of a console that Close was called on.
var ErrClosed = errors.New("the console is closed")

// ErrHangup is the error of a line whose other end went away: a USB adapter
// that was unplugged, a terminal server that hung up.
var ErrHangup = errors.New("the line hung up")

// Config says what a console keeps and where else its output goes.
type Config struct {
	Keep       int         // bytes of text kept for Since and Expect to look back on; 16 MiB if zero
	Tee        io.Writer   // also gets every byte received, from one goroutine; nil for none
	Transcript *Transcript // keeps all that is received and sent, on disk; stays the caller's. Nil for none
}

// Console is a console. Its methods may be called concurrently.
type Console struct {
	port   io.ReadWriteCloser
	config Config
	reader chan struct{} // closed when the reader has returned
	turn   chan struct{} // holds a token while Send writes

	mu      sync.Mutex // guards all below
	cut     *cut       // ends waits and writes; another after Resume
	raw     []byte     // the last of what arrived
	text    []byte     // what arrived, less escapes and NUL
	base    int64      // offset of text[0]
	strip   stripper
	waiters []*waiter // oldest first
	err     error     // why nothing will arrive any more
	closed  bool
}

// rawKept is how much of what arrived Tail can show, in bytes.
const rawKept = 64 << 10

// New makes a console of port, which it owns, and begins to read.
func New(port io.ReadWriteCloser, config Config) *Console {
	if config.Keep == 0 {
		config.Keep = 16 << 20
	}
	c := &Console{port: port, config: config, reader: make(chan struct{}), turn: make(chan struct{}, 1), cut: newCut()}
	go c.read()
	return c
}

func (c *Console) read() {
	defer close(c.reader)
	chunk := make([]byte, 32<<10)
	for {
		n, err := c.port.Read(chunk)
		if n > 0 {
			if c.config.Transcript != nil {
				c.config.Transcript.add(Received, chunk[:n])
			}
			// Before anyone who waits for it goes on: they may look there.
			if c.config.Tee != nil {
				_, _ = c.config.Tee.Write(chunk[:n]) // a listener that fails must not stop the console
			}
			c.append(chunk[:n])
		}
		var gap *GapError
		if errors.As(err, &gap) {
			if c.config.Transcript != nil {
				c.config.Transcript.Note(gap.Error())
			}
			continue
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// append adds what arrived and has every waiter look at it, so that none can
// miss what is dropped later.
func (c *Console) append(chunk []byte) {
	c.mu.Lock()
	if len(c.raw)+len(chunk) > 2*rawKept {
		c.raw = append(c.raw[:0], c.raw[max(0, len(c.raw)-rawKept):]...)
	}
	c.raw = append(c.raw, chunk...)
	if drop := len(c.text) - c.config.Keep; drop > c.config.Keep/2 {
		c.text = append(c.text[:0], c.text[drop:]...)
		c.base += int64(drop)
	}
	c.text = c.strip.append(c.text, chunk)
	var seen []func()
	c.waiters = slices.DeleteFunc(c.waiters, func(w *waiter) bool {
		for {
			match, ok := c.scan(w.scans)
			if !ok {
				return false
			}
			if w.found == nil {
				w.done <- match
				return true
			}
			seen = append(seen, func() { w.found(match) })
		}
	})
	c.mu.Unlock()
	for _, call := range seen {
		call()
	}
}

func (c *Console) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		err = ErrClosed
	}
	c.err = err
	for _, w := range c.waiters {
		close(w.done)
	}
	c.waiters = nil
}

// Write sends p as it is. It blocks until the port took it, or the console is
// closed.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.cut.err()
	if c.err != nil {
		err = c.err
	}
	if c.closed {
		err = ErrClosed
	}
	c.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("serialconsole: write: %w", err)
	}
	if c.config.Transcript != nil {
		c.config.Transcript.add(Sent, p)
	}
	n, err := c.port.Write(p)
	if err != nil {
		err = fmt.Errorf("serialconsole: write: %w", err)
	}
	return n, err
}

// Send sends text as Write does, but waits no longer than ctx: on a line that
// stands still, as its other end does not read. What was not sent when ctx ended
// may still go out, before anything of a later Send.
func (c *Console) Send(ctx context.Context, text string) error {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	select {
	case c.turn <- struct{}{}:
	case <-cut.made:
		return fmt.Errorf("serialconsole: write: %w", cut.cause)
	case <-ctx.Done():
		return fmt.Errorf("serialconsole: write: %w", context.Cause(ctx))
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(text))
		<-c.turn
		sent <- err
	}()
	select {
	case err := <-sent:
		return err
	case <-cut.made:
		return fmt.Errorf("serialconsole: write: %w", cut.cause)
	case <-ctx.Done():
		return fmt.Errorf("serialconsole: write: %w", context.Cause(ctx))
	}
}

// Mark returns the offset of the next byte of text to arrive.
func (c *Console) Mark() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base + int64(len(c.text))
}

// Kept returns the offset of the oldest text that is kept.
func (c *Console) Kept() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base
}

// Since returns a copy of the text from an offset on, as far as it is kept.
func (c *Console) Since(mark int64) []byte {
	return c.Between(mark, -1)
}

// Between returns a copy of the text from one offset to before another, as far
// as it is kept; a negative end stands for now.
func (c *Console) Between(start, end int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	length := int64(len(c.text))
	from := min(max(start-c.base, 0), length)
	to := length
	if end >= 0 {
		to = min(max(end-c.base, from), length)
	}
	return append([]byte(nil), c.text[from:to]...)
}

// Tail returns up to n of the last bytes as they arrived; n may be up to 64 KiB.
func (c *Console) Tail(n int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.raw[max(0, len(c.raw)-min(n, rawKept)):]...)
}

// Close closes the port, ends every wait and returns when the reader has
// ended.
func (c *Console) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.reader
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	err := c.port.Close()
	<-c.reader
	if err != nil {
		return fmt.Errorf("serialconsole: close: %w", err)
	}
	return nil
}
