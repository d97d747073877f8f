package consoletest_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/boardspec/boardspec/serialconsole/consoletest"
)

// through sends text through a noisy line, in whatever pieces it is read.
func through(t testing.TB, noise consoletest.Noise, text string) (string, *consoletest.NoisyPort) {
	t.Helper()
	near, far := net.Pipe()
	port := noise.Wrap(near)
	t.Cleanup(func() { port.Close() })
	go func() {
		io.WriteString(far, text)
		far.Close()
	}()
	got, err := io.ReadAll(port)
	if err != nil {
		t.Fatal(err)
	}
	return string(got), port
}

func TestNoise(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 100)
	for name, test := range map[string]struct {
		noise consoletest.Noise
		fits  func(string) bool
	}{
		"none":    {consoletest.Noise{}, func(got string) bool { return got == text }},
		"drops":   {consoletest.Noise{Drop: 1}, func(got string) bool { return got == "" }},
		"doubles": {consoletest.Noise{Double: 1}, func(got string) bool { return strings.HasPrefix(got, "00112233") && len(got) == 2000 }},
		"flips":   {consoletest.Noise{Flip: 1}, func(got string) bool { return len(got) == 1000 && got != text }},
		"delays":  {consoletest.Noise{Delay: 0.01, DelayTime: time.Microsecond}, func(got string) bool { return got == text }},
		"some":    {consoletest.Noise{Seed: 1, Drop: 0.01, Flip: 0.01}, func(got string) bool { return len(got) > 950 && len(got) < 1000 }},
	} {
		t.Run(name, func(t *testing.T) {
			got, port := through(t, test.noise, text)
			if !test.fits(got) {
				t.Errorf("got %q", got)
			}
			if again, _ := through(t, test.noise, text); again != got {
				t.Error("the same seed spoils other characters")
			}
			if read, _ := port.Spoiled(); (read == 0) != (name == "none") {
				t.Errorf("%d were spoiled", read)
			}
		})
	}
}

func TestNoiseOnWhatIsWritten(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	port := consoletest.Noise{Double: 1}.Wrap(near)
	go func() {
		if n, err := port.Write([]byte("ab")); n != 2 || err != nil {
			t.Error(n, err)
		}
		port.Close()
	}()
	if got, err := io.ReadAll(far); err != nil || string(got) != "aabb" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := port.Read(make([]byte, 1)); err == nil {
		t.Error("a closed port was read")
	}
}

func ExampleNoise() {
	near, far := net.Pipe()
	port := consoletest.Noise{Seed: 4, Drop: 0.2}.Wrap(near)
	go func() {
		io.WriteString(far, "setenv serverip 192.168.7.1")
		far.Close()
	}()
	spoiled, _ := io.ReadAll(port)
	fmt.Println(len(spoiled) < len("setenv serverip 192.168.7.1"))
	// Output: true
}
