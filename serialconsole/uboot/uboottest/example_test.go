package uboottest_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"testing"

	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/serialconsole/uboot/uboottest"
)

// A suite's own code is tested on a recording of a real board.
func Example() {
	board, err := uboottest.Open("../testdata/2025.01-arm64-virtio.console")
	if err != nil {
		log.Fatal(err)
	}
	console := serialconsole.New(board, serialconsole.Config{})
	defer console.Close()
	shell := uboot.New(console, uboot.Config{})
	version, err := shell.Version(context.Background())
	fmt.Println(version, err)
	_, err = shell.TFTPBoot(context.Background(), "missing", uboot.TFTPOptions{WindowSize: 1})
	fmt.Println(err)
	// Output:
	// U-Boot 2025.01-3+deb13u1 (Jun 24 2026 - 09:07:15 +0000) <nil>
	// uboot: tftpboot missing: U-Boot says: TFTP error: 'File not found' (1)
}

func TestWhatIsNoRecording(t *testing.T) {
	t.Parallel()
	if _, err := uboottest.Parse([]byte("=> version\r\nU-Boot\r\n=> ")); err == nil || !strings.Contains(err.Error(), "no command of package uboot is in it") {
		t.Errorf("error %v", err)
	}
	if _, err := uboottest.Open("/no/such/file"); err == nil || !strings.HasPrefix(err.Error(), "uboottest: ") {
		t.Errorf("error %v", err)
	}
}

func TestLineEditor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ typed, want string }{
		"a command":          {"echo a\r", "=> echo a\r\na\r\n=> "},
		"a backspace":        {"echo ab\b\r", "=> echo ab\b \b\r\na\r\n=> "},
		"a line that is cut": {"echo 56789abcdef\r", "=> echo 56789abcde\a\r\n56789abcde\r\n=> "},
		"Ctrl-C":             {"echo\x03", "=> echo<INTERRUPT>\r\n=> "},
		"Ctrl-U":             {"ab\x15true\r", "=> ab\b\b  \b\btrue\r\n=> "},
		"an empty line":      {"echo a\r\r", "=> echo a\r\na\r\n=> \r\na\r\n=> "},
		"not after Ctrl-C":   {"echo a\r\x03\r", "=> echo a\r\na\r\n=> <INTERRUPT>\r\n=> \r\n=> "},
		"a status":           {"false; echo $?\r", "=> false; echo $?\r\n1\r\n=> "},
		"no such command":    {"nonsense\r", "=> nonsense\r\nUnknown command 'nonsense' - try 'help'\r\n=> "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			board := &uboottest.Board{MaxLine: 16}
			defer board.Close()
			if _, err := board.Write([]byte(test.typed)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 200)
			n, err := board.Read(got)
			if err != nil || string(got[:n]) != test.want {
				t.Errorf("%q, %v; want %q", got[:n], err, test.want)
			}
		})
	}
}
