package tftp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Upload takes one file that a client writes. After the last byte Commit makes
// it a file of its name; the client is told that all is well only after that.
// Otherwise Discard is called, after which nothing of the file may be left. The
// methods are called from one goroutine, and exactly one of Commit and Discard,
// but that a Commit that fails is followed by Discard.
type Upload interface {
	io.Writer
	Commit() error
	Discard() error
}

// Memory keeps uploads in memory. The zero value is ready; its method Create
// goes into [Server.Create]. It is an [fs.FS] of the files that arrived whole,
// so a server can serve again what was written to it. It is safe for concurrent
// use.
type Memory struct {
	Overwrite bool // let an upload replace a file of its name

	mu    sync.Mutex // guards files
	files map[string]memoryFile
}

type memoryFile struct {
	data []byte
	time time.Time
}

// Create implements [Server.Create]. It returns an error that wraps
// [fs.ErrExist] if there is a file of the name, unless Overwrite is set.
func (m *Memory) Create(_ context.Context, r Request) (Upload, error) {
	name, err := r.Name()
	if err != nil {
		return nil, err
	}
	if err := m.vacant(name); err != nil {
		return nil, err
	}
	return &memoryUpload{memory: m, name: name}, nil
}

func (m *Memory) vacant(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; ok && !m.Overwrite {
		return &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	return nil
}

// Bytes returns the content of a file that arrived whole, and false if there is
// none of that name. The content is not to be changed.
func (m *Memory) Bytes(name string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	file, ok := m.files[name]
	return file.data, ok
}

// Names returns the names of the files that arrived whole, sorted.
func (m *Memory) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files))
}

// Open implements [fs.FS]. There are no directories.
func (m *Memory) Open(name string) (fs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	file, ok := m.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &openMemoryFile{bytes.NewReader(file.data), name, file}, nil
}

type memoryUpload struct {
	bytes.Buffer
	memory *Memory
	name   string
}

func (u *memoryUpload) Commit() error {
	m := u.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[u.name]; ok && !m.Overwrite {
		return &fs.PathError{Op: "create", Path: u.name, Err: fs.ErrExist}
	}
	if m.files == nil {
		m.files = make(map[string]memoryFile)
	}
	m.files[u.name] = memoryFile{u.Bytes(), time.Now()}
	return nil
}

func (u *memoryUpload) Discard() error {
	u.Buffer = bytes.Buffer{}
	return nil
}

// openMemoryFile is an fs.File and its own fs.FileInfo.
type openMemoryFile struct {
	*bytes.Reader
	name string
	file memoryFile
}

func (f *openMemoryFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *openMemoryFile) Close() error               { return nil }
func (f *openMemoryFile) Name() string               { return path.Base(f.name) }
func (f *openMemoryFile) Mode() fs.FileMode          { return 0o444 }
func (f *openMemoryFile) ModTime() time.Time         { return f.file.time }
func (f *openMemoryFile) IsDir() bool                { return false }
func (f *openMemoryFile) Sys() any                   { return nil }

// Dir is a directory of this host that files are served from and uploaded to.
// No name leads out of it, nor does a symbolic link ([os.Root]). It is an
// [fs.FS] for [Server.FS], and its method Create goes into [Server.Create]. It
// is safe for concurrent use.
type Dir struct {
	Overwrite bool // let an upload replace a file of its name
	MakeDirs  bool // make the directories that an upload's name has

	root *os.Root
}

// OpenDir opens a directory. Close it after the server.
func OpenDir(name string) (*Dir, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("tftp: %w", err)
	}
	return &Dir{root: root}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Open implements [fs.FS].
func (d *Dir) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, outside(err)
	}
	return f, nil
}

// Stat implements [fs.StatFS].
func (d *Dir) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	info, err := d.root.Stat(name)
	return info, outside(err)
}

// outside makes a permission error of one that os.Root has for a name that
// leads out of the directory, which is not of a type to be known by.
func outside(err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", fs.ErrPermission, err)
}

// Create implements [Server.Create]. The upload is written to a file of its own
// beside the one it will be, ".NAME.xxxxxxxx.part", and gets its name when it
// is whole. Create returns an error that wraps [fs.ErrExist] if there is a file
// of the name, unless Overwrite is set.
func (d *Dir) Create(_ context.Context, r Request) (Upload, error) {
	name, err := r.Name()
	if err != nil {
		return nil, err
	}
	if info, err := d.root.Lstat(name); err == nil {
		if !d.Overwrite {
			return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
		}
		if !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrPermission}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, outside(err)
	}
	if d.MakeDirs {
		if err := d.root.MkdirAll(path.Dir(name), 0o777); err != nil {
			return nil, outside(err)
		}
	}
	part := path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text()[:8]+".part")
	f, err := d.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, outside(err)
	}
	return &dirUpload{dir: d, name: name, part: part, file: f, buffer: bufio.NewWriterSize(f, 64<<10)}, nil
}

type dirUpload struct {
	dir        *Dir
	name, part string
	file       *os.File
	buffer     *bufio.Writer
}

func (u *dirUpload) Write(p []byte) (int, error) { return u.buffer.Write(p) }

func (u *dirUpload) Commit() error {
	if err := u.buffer.Flush(); err != nil {
		return err
	}
	if err := u.file.Close(); err != nil {
		return err
	}
	root := u.dir.root
	if u.dir.Overwrite {
		return root.Rename(u.part, u.name)
	}
	// A link fails where the name came into use meanwhile; a rename would not.
	err := root.Link(u.part, u.name)
	switch {
	case err == nil:
		return root.Remove(u.part)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	// A file system without links: take the name first, then replace it.
	f, err := root.OpenFile(u.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return root.Rename(u.part, u.name)
}

func (u *dirUpload) Discard() error {
	u.file.Close() // it may be closed already
	err := u.dir.root.Remove(u.part)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// create opens what a write request's file goes to.
func (s *Server) create(ctx context.Context, r Request) (Upload, error) {
	if s.Create == nil {
		return nil, &Error{CodeAccessViolation, "Uploads are not accepted"}
	}
	if limit := s.maxUpload(); limit >= 0 && r.Size > limit {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", errTooLarge, r.Size, limit)
	}
	u, err := s.Create(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("create the file: %w", err)
	}
	if u == nil {
		return nil, &Error{CodeAccessViolation, "Uploads are not accepted"}
	}
	return u, nil
}
