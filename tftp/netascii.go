package tftp

import "io"

// netasciiReader translates a file to netascii as it is read: LF becomes CR LF,
// CR becomes CR NUL (RFC 764 by way of RFC 1350 section 1).
type netasciiReader struct {
	r       io.Reader
	buf     [4096]byte
	in      []byte // what of buf is not translated yet
	pending byte   // the second byte of a pair
	paired  bool   // whether pending is to come
	err     error
}

// Read implements io.Reader.
func (n *netasciiReader) Read(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		if n.paired {
			p[written] = n.pending
			n.paired = false
			written++
			continue
		}
		if len(n.in) == 0 {
			if n.err != nil {
				break
			}
			var count int
			count, n.err = n.r.Read(n.buf[:])
			n.in = n.buf[:count]
			continue
		}
		c := n.in[0]
		n.in = n.in[1:]
		switch c {
		case '\n':
			c, n.pending, n.paired = '\r', '\n', true
		case '\r':
			n.pending, n.paired = 0, true
		}
		p[written] = c
		written++
	}
	if written == 0 && len(p) > 0 {
		return 0, n.err
	}
	return written, nil
}

// netasciiWriter translates netascii to a file: CR LF becomes LF, CR NUL
// becomes CR. A CR before anything else is kept.
type netasciiWriter struct {
	w   io.Writer
	buf []byte
	cr  bool // the last byte was a CR, not written yet
}

// Write implements io.Writer.
func (n *netasciiWriter) Write(p []byte) (int, error) {
	n.buf = n.buf[:0]
	for _, c := range p {
		if n.cr {
			n.cr = false
			switch c {
			case '\n':
				n.buf = append(n.buf, '\n')
				continue
			case 0:
				n.buf = append(n.buf, '\r')
				continue
			}
			n.buf = append(n.buf, '\r')
		}
		if c == '\r' {
			n.cr = true
			continue
		}
		n.buf = append(n.buf, c)
	}
	if _, err := n.w.Write(n.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes a CR that the file ended in.
func (n *netasciiWriter) flush() error {
	if !n.cr {
		return nil
	}
	n.cr = false
	_, err := n.w.Write([]byte{'\r'})
	return err
}
