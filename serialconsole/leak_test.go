package serialconsole_test

import (
	"context"
	"io"
	"net"
	"regexp"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"github.com/onsi/gomega/gleak"

	"github.com/boardspec/boardspec/serialconsole"
)

// Whatever a console's end, and whoever waited: no goroutine is left. It does
// not run beside other tests, whose goroutines it would see.
func TestNoGoroutineIsLeft(t *testing.T) {
	g := gomega.NewWithT(t)
	before := gleak.Goroutines()
	for name, end := range map[string]func(*serialconsole.Console, net.Conn){
		"closed":             func(c *serialconsole.Console, _ net.Conn) { c.Close() },
		"hung up":            func(c *serialconsole.Console, board net.Conn) { board.Close(); c.Close() },
		"closed twice":       func(c *serialconsole.Console, _ net.Conn) { c.Close(); c.Close() },
		"closed in a flood":  func(c *serialconsole.Console, board net.Conn) { go io.Copy(board, newFlood(1<<30)); c.Close() },
		"watched and closed": func(c *serialconsole.Console, _ net.Conn) { c.Watch(func(serialconsole.Match) {}); c.Close() },
	} {
		port, board := net.Pipe()
		c := serialconsole.New(port, serialconsole.Config{})
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			c.Expect(ctx, 0, serialconsole.Literal("more"), serialconsole.Regexp(regexp.MustCompile("even more")))
			c.WaitFor(ctx, 1<<30)
			cancel()
			go c.Expect(t.Context(), 0, serialconsole.Literal("for good"))
		}
		end(c, board)
		board.Close()
		g.Eventually(gleak.Goroutines).WithTimeout(10*time.Second).ShouldNot(gleak.HaveLeaked(before), name)
	}
	for _, address := range []string{"exec:cat", "exec:sleep 600"} {
		port, err := serialconsole.Open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		serialconsole.New(port, serialconsole.Config{}).Close()
		g.Eventually(gleak.Goroutines).WithTimeout(10*time.Second).ShouldNot(gleak.HaveLeaked(before), address)
	}
}
