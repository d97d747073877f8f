package tftp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

func TestUploadPacketByPacket(t *testing.T) {
	memory := new(tftp.Memory)
	server := &tftp.Server{Create: memory.Create}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpWrite, "/log/boot", "octet", "tsize", "1100", "blksize", "512", "timeout", "2")
		p.expect("OACK tsize=1100 blksize=512 timeout=2")
		p.expectSilence(1999500 * time.Microsecond)
		p.expect("OACK tsize=1100 blksize=512 timeout=2")
		data := content(1100)
		p.data(1, data[:512])
		p.expect("ACK 1")
		p.data(1, data[:512]) // our ACK was lost
		p.expect("ACK 1")
		p.data(2, data[512:1024])
		p.expect("ACK 2")
		p.data(1, data[:512]) // old
		p.expectSilence(time.Second)
		if _, ok := memory.Bytes("log/boot"); ok {
			t.Error("the file is there before it is whole")
		}
		p.data(3, data[1024:])
		p.expect("ACK 3")
		synctest.Wait()
		transfer := only(t, server)
		if transfer.Outcome != tftp.Complete || transfer.Size != 1100 || transfer.Blocks != 3 || transfer.Duplicates != 2 || transfer.TotalSize != 1100 {
			t.Errorf("record %+v", transfer)
		}
		if err := server.Settled(t.Context()); err != nil {
			t.Error(err)
		}
		p.expectSilence(5 * time.Second)
		p.data(3, data[1024:]) // the last ACK was lost
		p.expect("ACK 3")
		p.expectSilence(8 * time.Second)
		p.data(3, data[1024:]) // too late
		p.expectSilence(time.Second)
		if got, _ := memory.Bytes("log/boot"); !bytes.Equal(got, data) {
			t.Error("the upload differs")
		}
	})
}

func TestUploadInWindows(t *testing.T) {
	memory := new(tftp.Memory)
	server := &tftp.Server{Create: memory.Create}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpWrite, "f", "octet", "windowsize", "4")
		p.expect("OACK windowsize=4")
		data := content(512*6 + 5)
		block := func(n int) { p.data(uint16(n), data[512*(n-1):min(512*n, len(data))]) }
		block(1)
		block(2)
		block(4) // block 3 was lost
		p.expect("ACK 2")
		block(5)
		p.expectSilence(500 * time.Millisecond) // said once
		for n := 3; n <= 6; n++ {
			block(n)
		}
		p.expect("ACK 6")
		block(5)
		block(6) // the ACK was lost
		p.expect("ACK 6")
		block(7)
		p.expect("ACK 7")
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Gaps != 1 {
			t.Errorf("record %+v", transfer)
		}
		if got, _ := memory.Bytes("f"); !bytes.Equal(got, data) {
			t.Error("the upload differs")
		}
	})
}

// failing is an upload that fails at its method at.
type failing struct {
	at        string
	err       error
	discarded *int
}

func (f failing) Write(p []byte) (int, error) {
	if f.at == "write" {
		return 0, f.err
	}
	return len(p), nil
}

func (f failing) Commit() error {
	if f.at == "commit" {
		return f.err
	}
	return nil
}

func (f failing) Discard() error {
	*f.discarded++
	return nil
}

func TestUploadsThatFail(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/srv/secret", Err: syscall.ENOSPC}
	create := func(at string) func(context.Context, tftp.Request) (tftp.Upload, error) {
		return func(context.Context, tftp.Request) (tftp.Upload, error) { return failing{at, full, nil}, nil }
	}
	occupied := new(tftp.Memory)
	for _, test := range []struct {
		name      string
		server    *tftp.Server
		file      string
		options   []string
		blocks    []int // sizes of the blocks sent
		want      string
		outcome   tftp.Outcome
		discarded int
	}{
		{"a full disk at a block", &tftp.Server{Create: create("write")}, "f", nil, []int{512}, `ERROR 3 "Disk full or allocation exceeded"`, tftp.Failed, 1},
		{"a full disk at the end", &tftp.Server{Create: create("commit")}, "f", nil, []int{512, 5}, `ERROR 3 "Disk full or allocation exceeded"`, tftp.Failed, 1},
		{"more than allowed, as announced", &tftp.Server{Create: create(""), MaxUpload: 1000}, "f", []string{"tsize", "1001"}, nil,
			`ERROR 3 "Disk full or allocation exceeded"`, tftp.Failed, 0},
		{"more than allowed, as counted", &tftp.Server{Create: create(""), MaxUpload: 1000}, "f", nil, []int{512, 489},
			`ERROR 3 "Disk full or allocation exceeded"`, tftp.Failed, 1},
		{"as much as allowed", &tftp.Server{Create: create(""), MaxUpload: 1000}, "f", nil, []int{512, 488}, "ACK 2", tftp.Complete, 0},
		{"any number of bytes", &tftp.Server{Create: create(""), MaxUpload: -1}, "f", []string{"tsize", "99999999999"}, nil,
			"OACK tsize=99999999999", tftp.Running, 0},
		{"less than announced", &tftp.Server{Create: create("")}, "f", []string{"tsize", "600"}, []int{512, 5}, `ERROR 0 "Size differs from tsize"`, tftp.Failed, 1},
		{"a block that is too large", &tftp.Server{Create: create("")}, "f", nil, []int{513}, `ERROR 4 "Block larger than agreed"`, tftp.Failed, 1},
		{"a file that is there", &tftp.Server{Create: occupied.Create}, "there", nil, nil, `ERROR 6 "File already exists"`, tftp.Failed, 0},
		{"a name that leads out", &tftp.Server{Create: new(tftp.Memory).Create}, "../f", nil, nil, `ERROR 2 "Access violation"`, tftp.Failed, 0},
		{"no upload and no error from Create", &tftp.Server{Create: func(context.Context, tftp.Request) (tftp.Upload, error) { return nil, nil }},
			"f", nil, nil, `ERROR 2 "Uploads are not accepted"`, tftp.Failed, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			discarded := new(int)
			create := test.server.Create
			test.server.Create = func(ctx context.Context, r tftp.Request) (tftp.Upload, error) {
				u, err := create(ctx, r)
				if f, ok := u.(failing); ok {
					f.discarded = discarded
					u = f
				}
				return u, err
			}
			if _, ok := occupied.Bytes("there"); !ok {
				put(t, occupied, "there", nil)
			}
			withServer(t, test.server, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpWrite, test.file, "octet", test.options...)
				got := p.next(time.Millisecond)
				for i, size := range test.blocks {
					p.data(uint16(i+1), content(size))
					got = p.next(time.Millisecond)
				}
				if got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
				synctest.Wait()
				if transfer := only(t, test.server); transfer.Outcome != test.outcome {
					t.Errorf("record %+v", transfer)
				}
				if *discarded != test.discarded {
					t.Errorf("discarded %d times, want %d", *discarded, test.discarded)
				}
			})
		})
	}
}

func put(t *testing.T, memory *tftp.Memory, name string, data []byte) {
	t.Helper()
	upload, err := memory.Create(t.Context(), tftp.Request{Filename: name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upload.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := upload.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestAnUploadThatIsLeftIncomplete(t *testing.T) {
	for name, leave := range map[string]func(*tftp.Server, *peer){
		"the client vanishes": func(_ *tftp.Server, p *peer) { p.next(time.Minute); p.expectSilenceAfterRepeats() },
		"the client gives up": func(_ *tftp.Server, p *peer) {
			p.send([]byte("\x00\x05\x00\x00stop\x00"))
			p.expectSilence(time.Second)
		},
		"the server is closed":    func(s *tftp.Server, _ *peer) { s.Close() },
		"the client begins again": func(_ *tftp.Server, p *peer) { p.request(tftp.OpWrite, "other", "octet"); p.expect("ACK 0") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tree, err := tftp.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			memory := new(tftp.Memory)
			for kind, create := range map[string]func(context.Context, tftp.Request) (tftp.Upload, error){"memory": memory.Create, "directory": tree.Create} {
				t.Run(kind, func(t *testing.T) {
					server := &tftp.Server{Create: create, GiveUp: 10 * time.Second}
					synctest.Test(t, func(t *testing.T) {
						n := newNetwork()
						conn, _ := n.ListenPacket("udp", serverPort.String())
						server.ListenPacket = n.ListenPacket
						served := make(chan error, 1)
						go func() { served <- server.Serve(conn) }()
						p := newPeer(t, n, "192.168.7.2:1069")
						p.request(tftp.OpWrite, "f", "octet")
						p.expect("ACK 0")
						p.data(1, content(512))
						p.expect("ACK 1")
						leave(server, p)
						synctest.Wait()
						if transfer := server.Transfers()[0]; transfer.Outcome == tftp.Complete || transfer.Outcome == tftp.Running {
							t.Errorf("record %v", transfer)
						}
						p.conn.Close()
						if err := server.Close(); err != nil {
							t.Error(err)
						}
						<-served
						if names := memory.Names(); len(names) != 0 {
							t.Errorf("in memory: %q", names)
						}
						if left, _ := os.ReadDir(dir); len(left) != 0 {
							t.Errorf("in the directory: %v", left)
						}
					})
				})
			}
		})
	}
}

// expectSilenceAfterRepeats reads copies of the last ACK, and the ERROR at the
// end of the server's patience.
func (p *peer) expectSilenceAfterRepeats() {
	p.t.Helper()
	for {
		switch got := p.next(time.Minute); got {
		case "ACK 1":
		case `ERROR 0 "Timeout"`:
			return
		default:
			p.t.Fatalf("got %s", got)
		}
	}
}

func TestUploadsInNetascii(t *testing.T) {
	for text, want := range map[string]string{
		"a\r\nb\r\x00c": "a\nb\rc",
		"end\r":         "end\r",
		"cr\r\r\nx\ry":  "cr\r\nx\ry",
		"":              "",
	} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			memory := new(tftp.Memory)
			withServer(t, &tftp.Server{Create: memory.Create}, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpWrite, "f", "netascii", "blksize", "8")
				p.expect("OACK blksize=8")
				for block := 0; ; block++ {
					part := text[8*block : min(8*block+8, len(text))]
					p.data(uint16(block+1), []byte(part))
					p.expect(fmt.Sprintf("ACK %d", block+1))
					if len(part) < 8 {
						break
					}
				}
				if got, _ := memory.Bytes("f"); string(got) != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}

func TestDir(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "boot"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "boot", "uImage"), []byte("image"), 0o600))
	must(os.Symlink("boot/uImage", filepath.Join(dir, "current")))
	must(os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "absolute")))
	must(os.Symlink("../"+filepath.Base(outside)+"/secret", filepath.Join(dir, "relative")))
	must(os.Symlink(outside, filepath.Join(dir, "out")))
	must(mkfifo(filepath.Join(dir, "pipe")))
	tree, err := tftp.OpenDir(dir)
	must(err)
	defer tree.Close()
	server := &tftp.Server{FS: tree, Create: tree.Create}
	addr := serve(t, server)
	client := &tftp.Client{GiveUp: 5 * time.Second}

	for name, want := range map[string]error{
		"boot/uImage": nil, "/boot/uImage": nil, "current": nil,
		"boot": fs.ErrPermission, "absolute": fs.ErrPermission, "relative": fs.ErrPermission,
		"out/secret": fs.ErrPermission, "pipe": fs.ErrPermission,
		"boot/none": fs.ErrNotExist, "boot/uImage/x": fs.ErrNotExist, strings.Repeat("n", 500): fs.ErrNotExist,
		"../" + filepath.Base(outside) + "/secret": fs.ErrPermission,
	} {
		var got bytes.Buffer
		_, err := client.Get(t.Context(), addr, name, &got)
		if want == nil && (err != nil || got.String() != "image") || !errors.Is(err, want) || got.String() == "secret" {
			t.Errorf("%s: got %q, %v, want %v", name, &got, err, want)
		}
	}
	for name, want := range map[string]error{
		"new": nil, "boot/new": nil, "boot/uImage": fs.ErrExist, "current": fs.ErrExist, "pipe": fs.ErrExist,
		"none/new": fs.ErrNotExist, "out/new": fs.ErrPermission, "../new": fs.ErrPermission, "absolute": fs.ErrExist,
	} {
		_, err := client.Put(t.Context(), addr, name, strings.NewReader("upload"))
		if !errors.Is(err, want) {
			t.Errorf("upload %s: %v, want %v", name, err, want)
		}
		if err == nil {
			if data, _ := os.ReadFile(filepath.Join(dir, name)); string(data) != "upload" {
				t.Errorf("%s holds %q", name, data)
			}
		}
	}
	if left, _ := os.ReadDir(outside); len(left) != 1 {
		t.Errorf("written outside: %v", left)
	}

	open, err := tftp.OpenDir(dir)
	must(err)
	defer open.Close()
	open.Overwrite, open.MakeDirs = true, true
	addr = serve(t, &tftp.Server{Create: open.Create})
	for _, name := range []string{"boot/uImage", "a/b/new"} {
		if _, err := client.Put(t.Context(), addr, name, strings.NewReader("newer")); err != nil {
			t.Error(err)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, name)); string(data) != "newer" {
			t.Errorf("%s holds %q", name, data)
		}
	}
	if _, err := client.Put(t.Context(), addr, "current", strings.NewReader("newer")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("an upload over a symbolic link: %v", err)
	}
	parts, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(parts) != 0 {
		t.Errorf("left behind: %v, %v", parts, err)
	}
}

// Two clients write the same name at the same time: one of them wins, the other
// is told.
func TestTwoUploadsOfOneName(t *testing.T) {
	dir := t.TempDir()
	tree, err := tftp.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	memory := new(tftp.Memory)
	for kind, create := range map[string]func(context.Context, tftp.Request) (tftp.Upload, error){"memory": memory.Create, "directory": tree.Create} {
		t.Run(kind, func(t *testing.T) {
			one, err := create(t.Context(), tftp.Request{Filename: "f"})
			if err != nil {
				t.Fatal(err)
			}
			two, err := create(t.Context(), tftp.Request{Filename: "f"})
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range []tftp.Upload{one, two} {
				if _, err := u.Write([]byte("data")); err != nil {
					t.Fatal(err)
				}
			}
			if err := two.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := one.Commit(); !errors.Is(err, fs.ErrExist) {
				t.Errorf("the second commit: %v", err)
			}
			if err := one.Discard(); err != nil {
				t.Error(err)
			}
		})
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("in the directory: %v", left)
	}
}

func TestMemoryIsAFileSystem(t *testing.T) {
	t.Parallel()
	memory := new(tftp.Memory)
	put(t, memory, "log", []byte("U-Boot 2025.01"))
	server := &tftp.Server{FS: memory, Create: memory.Create}
	var got bytes.Buffer
	record, err := new(tftp.Client).Get(t.Context(), serve(t, server), "log", &got)
	if err != nil || got.String() != "U-Boot 2025.01" || record.TotalSize != 14 {
		t.Errorf("got %q, %v, %v", &got, record, err)
	}
	if info, err := fs.Stat(memory, "log"); err != nil || info.Size() != 14 || info.IsDir() || info.Name() != "log" {
		t.Errorf("%v, %v", info, err)
	}
}
