package tftp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"strings"
)

// The modes of RFC 1350 that are spoken here.
const (
	modeOctet    = "octet"
	modeNetascii = "netascii"
)

// Request is what a client asks of a server.
type Request struct {
	Op       Op                // OpRead or OpWrite
	Filename string            // as the client spelled it: check it before using it as a path, see Name
	Mode     string            // "octet" or "netascii"
	Options  map[string]string // names in lower case
	Peer     netip.AddrPort    // the client's address and TID
	Size     int64             // of a write: the size in bytes that the client announced (tsize), else -1
}

// Name returns the file's name as a path within a tree, in the form that
// [fs.ValidPath] describes: without leading slashes, which U-Boot and PXE
// clients send as they please, and with no way out. A name that leaves the tree
// or means the tree itself gives an error that wraps [fs.ErrPermission].
func (r Request) Name() (string, error) {
	clean := path.Clean(strings.TrimLeft(r.Filename, "/"))
	if clean == "." || !fs.ValidPath(clean) {
		return "", fmt.Errorf("the name %q leaves the tree: %w", r.Filename, fs.ErrPermission)
	}
	return clean, nil
}

// openFS opens a file of a tree for a read request.
func openFS(files fs.FS, r Request) (io.Reader, error) {
	f, err := openName(files, r)
	if err != nil && strings.Contains(r.Filename, `\`) {
		// PXE clients of Windows separate directories their way.
		r.Filename = strings.ReplaceAll(r.Filename, `\`, "/")
		if f, again := openName(files, r); again == nil {
			return f, nil
		}
	}
	return f, err
}

func openName(files fs.FS, r Request) (io.Reader, error) {
	name, err := r.Name()
	if err != nil {
		return nil, err
	}
	// To open a named pipe would wait for its writer: look before.
	if look, ok := files.(fs.StatFS); ok {
		info, err := look.Stat(name)
		if err != nil {
			return nil, err
		}
		if err := servable(name, info); err != nil {
			return nil, err
		}
	}
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = servable(name, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// servable refuses what is not a file with content.
func servable(name string, info fs.FileInfo) error {
	if info.IsDir() || info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		return fmt.Errorf("%q is no regular file: %w", name, fs.ErrPermission)
	}
	return nil
}

// newContent finds out what a reader says of itself: its size, by Stat, Len or
// Size, and whether it closes.
func newContent(r io.Reader, mode string) (content, error) {
	c := content{Reader: r, size: -1, close: func() error { return nil }}
	if closer, ok := r.(io.Closer); ok {
		c.close = closer.Close
	}
	switch s := r.(type) {
	case interface{ Stat() (fs.FileInfo, error) }:
		info, err := s.Stat()
		if err != nil {
			return c, err
		}
		if info.Mode().IsRegular() {
			c.size = info.Size()
		}
	case interface{ Len() int }:
		c.size = int64(s.Len())
	case interface{ Size() int64 }:
		c.size = s.Size()
	}
	if file, ok := r.(*os.File); ok && c.size > 0 {
		// One read of the disk for many blocks.
		c.Reader = bufio.NewReaderSize(file, int(min(c.size, 64<<10)))
	}
	c.ready = c.size >= 0
	if c.size == 0 {
		// Files such as those of /proc have content, though they deny it.
		var first [1]byte
		n, err := io.ReadFull(r, first[:])
		if err != nil && err != io.EOF {
			return c, fmt.Errorf("read the file: %w", err)
		}
		if n > 0 {
			c.size, c.ready = -1, false
			c.Reader = io.MultiReader(bytes.NewReader(first[:]), r)
		}
	}
	if c.size >= 0 {
		c.Reader = &sizedReader{c.Reader, c.size}
	}
	if mode == modeNetascii {
		c.Reader, c.size = &netasciiReader{r: c.Reader}, -1
	}
	return c, nil
}

// open opens what a read request asks for.
func (s *Server) open(ctx context.Context, r Request) (content, error) {
	var file io.Reader
	var err error
	switch {
	case s.Open != nil:
		file, err = s.Open(ctx, r)
		if err == nil && file == nil {
			err = fs.ErrNotExist
		}
	case s.FS != nil:
		file, err = openFS(s.FS, r)
	default:
		err = &Error{CodeAccessViolation, "Nothing is served"}
	}
	if err != nil {
		return content{}, fmt.Errorf("open the file: %w", err)
	}
	c, err := newContent(file, r.Mode)
	if err != nil {
		c.close()
	}
	return c, err
}

func newRequest(r request, peer netip.AddrPort) Request {
	out := Request{Op: r.op, Filename: r.filename, Mode: r.mode, Options: optionMap(r.options), Peer: peer, Size: -1}
	if n, ok := number(out.Options["tsize"]); ok && r.op == OpWrite {
		out.Size = n
	}
	return out
}
