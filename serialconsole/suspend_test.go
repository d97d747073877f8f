package serialconsole_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
)

// What waits when a console is suspended ends at once, and so does what comes
// after, until it is resumed.
func TestSuspend(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	near, far := net.Pipe() // nobody reads: a write waits
	defer far.Close()
	console := serialconsole.New(near, serialconsole.Config{})
	defer console.Close()
	var off, still = errors.New("switched off"), errors.New("still off")

	waits := map[string]func() error{
		"Expect": func() error {
			_, err := console.Expect(ctx, 0, serialconsole.Literal("never"))
			return err
		},
		"WaitFor": func() error { return console.WaitFor(ctx, 1000) },
		"Send":    func() error { return console.Send(ctx, "x") },
	}
	errs := make(chan error, len(waits))
	for _, wait := range waits {
		go func() { errs <- wait() }()
	}
	// So that most of them wait by then; those that do not yet end all the same.
	<-time.After(50 * time.Millisecond)
	console.Suspend(off)
	for range waits {
		if err := <-errs; !errors.Is(err, off) {
			t.Errorf("what waited: %v", err)
		}
	}
	console.Suspend(still)
	for name, wait := range waits {
		if err := wait(); !errors.Is(err, still) {
			t.Errorf("%s on a suspended console: %v", name, err)
		}
	}

	console.Resume()
	console.Resume()
	go io.Copy(io.Discard, far)
	if err := console.Send(ctx, "y"); err != nil {
		t.Error(err)
	}
	go io.WriteString(far, "here")
	if _, err := console.Expect(ctx, 0, serialconsole.Literal("here")); err != nil {
		t.Error(err)
	}
}
