package serialconsole

import "bytes"

// stripper removes NUL bytes and terminal escape sequences (ECMA-48) from a
// stream that comes in pieces.
type stripper struct {
	state stripState
	run   int // bytes of the sequence so far
}

type stripState int

const (
	inText   stripState = iota
	inEscape            // behind ESC
	inCSI               // behind ESC [, up to the final byte
	inString            // behind ESC ] P X ^ _, up to BEL or ESC \
	inStringEscape
)

// longestEscape bounds a sequence: a lone ESC followed by text must not hide
// the console for good.
const longestEscape = 256

func (s *stripper) append(text, chunk []byte) []byte {
	for len(chunk) > 0 {
		if s.state == inText {
			// Most text holds neither: copy up to the next one.
			n := bytes.IndexByte(chunk, 0x1b)
			if n < 0 {
				n = len(chunk)
			}
			if null := bytes.IndexByte(chunk[:n], 0); null >= 0 {
				n = null
			}
			text, chunk = append(text, chunk[:n]...), chunk[n:]
			if len(chunk) == 0 {
				break
			}
		}
		b := chunk[0]
		chunk = chunk[1:]
		if s.state != inText {
			if s.run++; s.run > longestEscape {
				s.state = inText
			}
		}
		switch s.state {
		case inText:
			switch b {
			case 0x1b:
				s.state, s.run = inEscape, 0
			case 0:
			default:
				text = append(text, b)
			}
		case inEscape:
			switch {
			case b == '[':
				s.state = inCSI
			case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
				s.state = inString
			case b >= 0x20 && b <= 0x2f: // an intermediate byte
			default:
				s.state = inText
			}
		case inCSI:
			switch {
			case b >= 0x40 && b <= 0x7e:
				s.state = inText
			case b < 0x20: // no part of a sequence: it was cut
				s.state = inText
				text = append(text, b)
			}
		case inString:
			switch b {
			case 0x07:
				s.state = inText
			case 0x1b:
				s.state = inStringEscape
			}
		case inStringEscape:
			s.state = inText
		}
	}
	return text
}
