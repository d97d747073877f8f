package uboot_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/consoletest"
	"github.com/boardspec/boardspec/serialconsole/uboot"
)

// On a line that drops, doubles, delays and flips characters in both
// directions, a command's result is right or an error: never another one's,
// never a spoiled one.
func TestNoisyLine(t *testing.T) {
	t.Parallel()
	commands := 10_000
	if testing.Short() {
		commands = 500
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	board, err := virtual.StartProcess(ctx, virtual.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer board.Close()
	port, err := board.OpenConsole(ctx)
	if err != nil {
		t.Fatal(err)
	}
	noisy := consoletest.Noise{Seed: 7, Drop: 1e-4, Double: 1e-4, Flip: 1e-4, Delay: 1e-3}.Wrap(port)
	console := serialconsole.New(noisy, serialconsole.Config{})
	defer console.Close()
	if err := board.On(ctx); err != nil {
		t.Fatal(err)
	}
	shell := uboot.New(console, uboot.Config{EchoTimeout: 20 * time.Millisecond})
	if err := shell.Interrupt(ctx); err != nil {
		t.Fatal(err)
	}

	dice := rand.New(rand.NewPCG(7, 7))
	kinds := make(map[string]int)
	value := ""
	for i := range commands {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		var got, want string
		var err error
		switch i % 4 {
		case 0:
			want = fmt.Sprintf("%d of %x", i, dice.Uint64())
			got, err = shell.Run(ctx, "echo "+want)
		case 1:
			want = value
			if want != "" {
				got, err = shell.Getenv(ctx, "v")
			}
		case 2:
			next := fmt.Sprintf("%x", dice.Uint64())
			if err = shell.Setenv(ctx, "v", next); err == nil {
				value = next
			} else {
				value = "" // it may have been set
			}
		case 3:
			// Output that looks like a prompt, and a status that is not 0.
			want = "=> \nU-Boot"
			got, err = shell.Run(ctx, "echo '=> '; echo U-Boot; false")
			var exit *uboot.ExitError
			if errors.As(err, &exit) && exit.Status == 1 {
				err = nil
			} else if err == nil {
				t.Errorf("command %d: no exit status", i)
			}
		}
		cancel()
		var noise *uboot.NoiseError
		switch {
		case err == nil && got == want:
			kinds["right"]++
		case err == nil:
			t.Errorf("command %d: %q without an error, want %q", i, got, want)
		case errors.As(err, &noise):
			kinds["*NoiseError"]++
		case errors.Is(err, context.DeadlineExceeded):
			kinds["the context's"]++ // too much at once was spoiled
		default:
			t.Errorf("command %d: an error of no type: %v", i, err)
		}
	}
	read, written := noisy.Spoiled()
	t.Logf("%d characters spoiled on their way in, %d on their way out: %v", read, written, kinds)
	if read+written < commands/100 {
		t.Error("the line was too good to show anything")
	}
	if kinds["right"] < commands*3/4 {
		t.Error("too few commands came through")
	}
}
