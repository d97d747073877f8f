package serialconsole_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/boardspec/boardspec/serialconsole"
)

// newLine returns the board's end of a serial line, and the line's path.
func newLine(t testing.TB) (board *os.File, path string) {
	t.Helper()
	board, line, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { board.Close() })
	// As it is on a wire: no echo, no translation.
	raw, err := unix.IoctlGetTermios(int(line.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	raw.Iflag, raw.Oflag, raw.Lflag = 0, 0, 0
	if err := unix.IoctlSetTermios(int(line.Fd()), unix.TCSETS, raw); err != nil {
		t.Fatal(err)
	}
	path = line.Name()
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	return board, path
}

func openConsole(t testing.TB, address string) *serialconsole.Console {
	t.Helper()
	port, err := serialconsole.Open(deadline(t), address)
	if err != nil {
		t.Fatal(err)
	}
	c := serialconsole.New(port, serialconsole.Config{})
	t.Cleanup(func() { c.Close() })
	return c
}

func expect(t testing.TB, c *serialconsole.Console, text string) {
	t.Helper()
	if _, err := c.Expect(deadline(t), 0, serialconsole.Literal(text)); err != nil {
		t.Fatal(err)
	}
}

func TestProgramAsAPort(t *testing.T) {
	t.Parallel()
	t.Run("is typed at and read", func(t *testing.T) {
		c := openConsole(t, `exec:sh -c 'echo "ready to go"; exec cat'`)
		expect(t, c, "ready to go\n")
		io.WriteString(c, "typed\n")
		expect(t, c, "typed\n")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("says how it ended", func(t *testing.T) {
		c := openConsole(t, "exec:sh -c 'echo last words; echo no route to the lab >&2; exit 7'")
		_, err := c.Expect(deadline(t), 0, serialconsole.Literal("more"))
		if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "no route to the lab") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("ends in peace", func(t *testing.T) {
		c := openConsole(t, "exec:true")
		if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("more")); !errors.Is(err, io.EOF) {
			t.Errorf("error %v, want io.EOF", err)
		}
	})
	t.Run("is closed with its children, even those that do not want to", func(t *testing.T) {
		c := openConsole(t, `exec:sh -c 'trap "" TERM; sleep 600 & echo $! $$; wait; sleep 600'`)
		expect(t, c, "\n")
		var child, parent int
		fmt.Sscan(string(c.Since(0)), &child, &parent)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, pid := range []int{child, parent} {
			if pid == 0 || !ended(t, pid) {
				t.Errorf("process %d lives on", pid)
			}
		}
	})
	for address, want := range map[string]string{
		"exec:":                "no program",
		"exec:no-such-program": "executable file not found",
		"exec:sh -c 'echo":     "a quote ' is left open",
	} {
		if _, err := serialconsole.Open(deadline(t), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// ended reports whether a process ends within the test's time.
func ended(t testing.TB, pid int) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	return err == nil && n == 1
}

// startSer2net serves a line by Debian's ser2net and returns its address.
func startSer2net(t *testing.T, accepter, line string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	host, port, _ := net.SplitHostPort(address)
	config := filepath.Join(t.TempDir(), "ser2net.yaml")
	text := fmt.Sprintf("connection: &board\n  accepter: %s,tcp,%s,%s\n  connector: serialdev,%s,115200n81,local\n", accepter, host, port, line)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("ser2net")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/ser2net"); err != nil {
			t.Fatalf("%v: apt-get install ser2net", err)
		}
	}
	var said bytes.Buffer
	server := exec.Command(program, "-n", "-u", "-c", config, "-P", filepath.Join(t.TempDir(), "pid"))
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Logf("ser2net said: %s", said.String())
		}
	})
	// It listens when it can be connected to; the line is opened with that.
	ctx := deadline(t)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return address
		}
		select {
		case <-ctx.Done():
			t.Fatalf("ser2net does not listen: %v; it said: %s", err, said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestTelnetFromSer2net(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, test := range map[string]struct{ accepter, parameters string }{
		"with RFC 2217":    {"telnet(rfc2217)", "?baud=9600&data=7&parity=even&stop=2"},
		"without RFC 2217": {"telnet", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			board, path := newLine(t)
			// While no one has it open, a pty's other end is dead.
			line, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer line.Close()
			address := "telnet://" + startSer2net(t, test.accepter, path)
			port, err := serialconsole.Open(deadline(t), address+test.parameters)
			for errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				// The line of the connection that looked is being closed.
				port, err = serialconsole.Open(deadline(t), address+test.parameters)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer port.Close()
			typed := make([]byte, 256)
			if test.parameters != "" {
				set, err := unix.IoctlGetTermios(int(line.Fd()), unix.TCGETS)
				if err != nil {
					t.Fatal(err)
				}
				if set.Cflag&unix.CBAUD != unix.B9600 || set.Cflag&unix.CSTOPB == 0 {
					t.Errorf("the line is set to %#x", set.Cflag)
				}
				if err := port.(serialconsole.LineControl).Break(time.Millisecond); err != nil {
					t.Error(err)
				}
				if err := port.(serialconsole.LineControl).SetDTR(true); err != nil {
					t.Error(err)
				}
			}
			// Every byte, in both directions.
			wrote := make(chan error, 1)
			go func() {
				_, err := port.Write(every)
				wrote <- err
			}()
			board.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := io.ReadFull(board, typed); err != nil || !bytes.Equal(typed, every) {
				t.Errorf("the board read %d bytes, %v: %x", n, err, typed[:n])
			}
			if err := <-wrote; err != nil {
				t.Error(err)
			}
			board.Write(every)
			printed := make([]byte, 256)
			stop := context.AfterFunc(deadline(t), func() { port.Close() })
			defer stop()
			if n, err := io.ReadFull(port, printed); err != nil || !bytes.Equal(printed, every) {
				t.Errorf("%d bytes arrived, %v: %x", n, err, printed[:n])
			}
		})
	}
}

// telnetServer answers one connection by a script and returns its address.
func telnetServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	return "telnet://" + listener.Addr().String()
}

func TestTelnetByScript(t *testing.T) {
	t.Parallel()
	t.Run("commands in pieces are no text", func(t *testing.T) {
		t.Parallel()
		c := openConsole(t, telnetServer(t, func(conn net.Conn) {
			for _, b := range []byte("a\xff\xfb\x01b\xff\xfd\x18c\xff\xfa\x2c\x6a\xff\xff\xff\xf0d\xff\xffe\r\x00f\xff\xf1g") {
				conn.Write([]byte{b})
			}
			io.Copy(io.Discard, conn)
		}))
		expect(t, c, "g")
		if text := string(c.Since(0)); text != "abcd\xffe\rfg" {
			t.Errorf("text %q", text)
		}
	})
	t.Run("a server that refuses RFC 2217", func(t *testing.T) {
		t.Parallel()
		address := telnetServer(t, func(conn net.Conn) {
			conn.Write([]byte("\xff\xfe\x2c"))
			io.Copy(io.Discard, conn)
		})
		if _, err := serialconsole.Open(deadline(t), address+"?baud=9600"); err == nil || !strings.Contains(err.Error(), "does not speak RFC 2217") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a server that sets another rate", func(t *testing.T) {
		t.Parallel()
		address := telnetServer(t, func(conn net.Conn) {
			conn.Write([]byte("\xff\xfd\x2c\xff\xfa\x2c\x65\x00\x00\x04\xb0\xff\xf0"))
			io.Copy(io.Discard, conn)
		})
		if _, err := serialconsole.Open(deadline(t), address+"?baud=9600"); err == nil || !strings.Contains(err.Error(), "set baud to 1200, not to 9600") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a server that says nothing", func(t *testing.T) {
		t.Parallel()
		address := telnetServer(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := serialconsole.Open(ctx, address+"?baud=9600"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "RFC 2217") {
			t.Errorf("error %v", err)
		}
	})
}

// FuzzTelnet feeds whatever a server may send, in two pieces: the text is the
// same as in one, and nothing panics.
func FuzzTelnet(f *testing.F) {
	f.Add([]byte("a\xff\xfb\x01b\xff\xfa\x2c\x6a\xff\xff\xff\xf0c\r\x00d"), 3)
	f.Add([]byte("\xff"), 0)
	f.Fuzz(func(t *testing.T, stream []byte, at int) {
		at = max(0, min(at, len(stream)))
		read := func(pieces ...[]byte) string {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Skip(err)
			}
			defer listener.Close()
			port, err := serialconsole.Open(t.Context(), "telnet://"+listener.Addr().String())
			if err != nil {
				t.Skip(err) // out of ports
			}
			defer port.Close()
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, conn)
			for _, piece := range pieces {
				conn.Write(piece)
			}
			conn.(*net.TCPConn).CloseWrite()
			text, _ := io.ReadAll(port)
			conn.Close()
			return string(text)
		}
		if one, two := read(stream), read(stream[:at], stream[at:]); one != two {
			t.Errorf("%q in one piece, %q in two", one, two)
		}
	})
}

func TestLockFile(t *testing.T) {
	t.Parallel()
	_, path := newLine(t)
	lock := "/var/lock/LCK..pts_" + filepath.Base(path)

	holder := exec.Command("sleep", "600")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { holder.Process.Kill(); holder.Wait() }()
	if err := os.WriteFile(lock, fmt.Appendf(nil, "%10d minicom root\n", holder.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(lock)
	_, err := serialconsole.Open(deadline(t), path)
	var busy *serialconsole.BusyError
	if !errors.As(err, &busy) || !errors.Is(err, serialconsole.ErrBusy) || busy.PID != holder.Process.Pid || busy.Command != "sleep 600" {
		t.Fatalf("a line that minicom has: %v", err)
	}

	// A lock whose process has ended is none.
	holder.Process.Kill()
	holder.Wait()
	port, err := serialconsole.Open(deadline(t), path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(lock)
	if err != nil || string(content) != fmt.Sprintf("%10d\n", os.Getpid()) {
		t.Errorf("the lock file holds %q, %v", content, err)
	}

	t.Run("picocom honours it", func(t *testing.T) {
		said, err := exec.Command("picocom", "--quiet", "--noreset", path).CombinedOutput()
		if err == nil || !strings.Contains(string(said), "lock") {
			t.Errorf("picocom: %v: %s; it comes with: apt-get install picocom", err, said)
		}
	})
	if _, err := serialconsole.Open(deadline(t), path); !errors.As(err, &busy) || busy.PID != os.Getpid() || busy.Host == "" {
		t.Errorf("a line that we have: %v", err)
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock file is left: %v", err)
	}
}

func TestCloseEndsAWriteThatStands(t *testing.T) {
	t.Parallel()
	_, path := newLine(t) // whose board never reads
	port, err := serialconsole.Open(deadline(t), path)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	full := make(chan struct{})
	go func() {
		_, err := port.Write(make([]byte, 3000)) // which the system's buffer holds
		close(full)
		if err == nil {
			_, err = port.Write(make([]byte, 1<<20))
		}
		wrote <- err
	}()
	<-full
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-wrote:
		if !errors.Is(err, serialconsole.ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
	case <-deadline(t).Done():
		t.Fatal("the write goes on")
	}
	if _, err := port.Write([]byte("x")); !errors.Is(err, serialconsole.ErrClosed) {
		t.Errorf("a write after it: %v", err)
	}
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "ttyUSB0")
	first, line := newLine(t)
	if err := os.Symlink(line, path); err != nil {
		t.Fatal(err)
	}
	transcriptPath := filepath.Join(dir, "transcript")
	transcript, err := serialconsole.CreateTranscript(transcriptPath)
	if err != nil {
		t.Fatal(err)
	}
	defer transcript.Close()
	port, err := serialconsole.Open(deadline(t), path+"?reconnect=10s")
	if err != nil {
		t.Fatal(err)
	}
	c := serialconsole.New(port, serialconsole.Config{Transcript: transcript})
	defer c.Close()
	io.WriteString(first, "before")
	expect(t, c, "before")

	first.Close() // the adapter loses its power
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, line := newLine(t)
	if err := os.Symlink(line, path); err != nil {
		t.Fatal(err)
	}
	io.WriteString(second, "after")
	expect(t, c, "after")
	if _, err := io.WriteString(c, "typed"); err != nil {
		t.Fatal(err)
	}
	typed := make([]byte, 5)
	if _, err := io.ReadFull(second, typed); err != nil || string(typed) != "typed" {
		t.Errorf("%q, %v", typed, err)
	}
	c.Close()
	var text bytes.Buffer
	if err := transcript.WriteTimed(&text); err != nil || !strings.Contains(text.String(), "# "+path+" was gone for ") {
		t.Errorf("the transcript does not show the gap: %s, %v", text.String(), err)
	}

	t.Run("not in time", func(t *testing.T) {
		board, line := newLine(t)
		path := filepath.Join(dir, "ttyUSB1")
		if err := os.Symlink(line, path); err != nil {
			t.Fatal(err)
		}
		c := openConsole(t, path+"?reconnect=50ms")
		board.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("more")); !errors.Is(err, serialconsole.ErrHangup) || !strings.Contains(err.Error(), "did not come back within 50ms") {
			t.Errorf("error %v", err)
		}
	})
}

func TestUSBIdentity(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"usb:":                         "no adapter is described",
		"usb:?serial=no-such-number":   "no USB adapter",
		"usb:?vid=ffff&pid=ffff&baud=": "no USB adapter",
	} {
		if _, err := serialconsole.Open(deadline(t), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
