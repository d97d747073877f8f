package ci_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whatever happens to what runs in the bench box: no namespace (and so no tap
// device), no emulator and no file stays.
func TestBenchboxLeavesNothing(t *testing.T) {
	for _, test := range []struct {
		name    string
		command string
		signal  syscall.Signal // sent to ci/benchbox once the command runs
	}{
		{name: "after success", command: "true"},
		{name: "after failure", command: "exit 3"},
		{name: "after its command was killed", command: "kill -9 $$"},
		{name: "after SIGTERM", command: "exec sleep 60", signal: syscall.SIGTERM},
		{name: "after SIGINT", command: "exec sleep 60", signal: syscall.SIGINT},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			name := fmt.Sprintf("boardspec-%d", os.Getpid())
			box := exec.CommandContext(ctx, "./benchbox", "run", "sh", "-c", "echo $BOARDSPEC_BOARD; cat /run/"+name+"/pid; "+test.command)
			box.Env = append(os.Environ(), "BENCHBOX="+name)
			// A group of its own, as a terminal's signal reaches the command as well.
			box.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			output, err := box.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			box.Stderr = os.Stderr
			if err := box.Start(); err != nil {
				t.Fatal(err)
			}
			var board string
			var qemu int
			if _, err := fmt.Fscanln(output, &board); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fscanln(output, &qemu); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(board, "/dev/pts/") {
				t.Errorf("BOARDSPEC_BOARD=%s is no pty", board)
			}
			if err := syscall.Kill(qemu, 0); err != nil {
				t.Errorf("QEMU, process %d: %v", qemu, err)
			}
			if test.signal != 0 {
				if err := syscall.Kill(-box.Process.Pid, test.signal); err != nil {
					t.Error(err)
				}
			}
			box.Wait() // its status is the command's

			if namespaces, err := exec.Command("ip", "netns", "list").Output(); err != nil || strings.Contains(string(namespaces), name) {
				t.Errorf("namespaces after it: %s %v", namespaces, err)
			}
			if _, err := os.Stat("/run/" + name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its state is still there: %v", err)
			}
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", qemu)); err == nil && strings.Contains(string(stat), "(qemu-system") && !strings.Contains(string(stat), ") Z") {
				t.Errorf("QEMU is still there: %s", stat)
			}
		})
	}
}
