package serialconsole

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// GapError is what Read of a reconnecting line returns, as an error, when the line
// is back: a Console notes it in its transcript and reads on.
type GapError struct {
	Path string
	Gone time.Duration
}

// Error implements error.
func (g *GapError) Error() string {
	return fmt.Sprintf("%s was gone for %v", g.Path, g.Gone.Round(time.Millisecond))
}

// reconnecting is a line that comes back after it went, as that of a USB
// adapter that has its power from the board does.
type reconnecting struct {
	path  string
	limit time.Duration // how long it may be gone
	open  func(context.Context) (io.ReadWriteCloser, error)
	ctx   context.Context // ends with Close
	close context.CancelFunc

	mu   sync.Mutex // guards port
	port io.ReadWriteCloser
}

func openReconnecting(ctx context.Context, path string, limit time.Duration, open func(context.Context) (io.ReadWriteCloser, error)) (io.ReadWriteCloser, error) {
	port, err := open(ctx)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	return &reconnecting{path: path, limit: limit, open: open, ctx: life, close: end, port: port}, nil
}

// Read implements io.Reader.
func (r *reconnecting) Read(b []byte) (int, error) {
	r.mu.Lock()
	port := r.port
	r.mu.Unlock()
	n, err := port.Read(b)
	if err == nil || !errors.Is(err, ErrHangup) {
		return n, err
	}
	went := time.Now()
	port.Close() // what it holds is of no use, its lock above all
	if err := r.reopen(); err != nil {
		if r.ctx.Err() != nil {
			return 0, ErrClosed
		}
		return 0, fmt.Errorf("%w, and %s did not come back within %v: %w", ErrHangup, r.path, r.limit, err)
	}
	return 0, &GapError{r.path, time.Since(went)}
}

// reopen waits until the line can be opened.
func (r *reconnecting) reopen() error {
	ctx, cancel := context.WithTimeout(r.ctx, r.limit)
	defer cancel()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(r.path)); err != nil {
		return err
	}
	for {
		port, err := r.open(ctx)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.ctx.Err() != nil {
				port.Close()
				return r.ctx.Err()
			}
			r.port = port
			return nil
		}
		// udev creates it, then changes its owner and mode.
		select {
		case <-watcher.Events:
		case <-ctx.Done():
			return err
		}
	}
}

// Write implements io.Writer. What is written while the line is gone is lost,
// as on one that is unplugged.
func (r *reconnecting) Write(b []byte) (int, error) {
	r.mu.Lock()
	port := r.port
	r.mu.Unlock()
	n, err := port.Write(b)
	if err != nil && r.ctx.Err() == nil {
		return len(b), nil
	}
	return n, err
}

// Close implements io.Closer.
func (r *reconnecting) Close() error {
	r.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.port.Close()
}
