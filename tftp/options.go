package tftp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// The options' ranges and what holds without them.
const (
	minBlockSize     = 8     // bytes, RFC 2348
	maxBlockSize     = 65464 // bytes, RFC 2348
	defaultBlockSize = 512   // bytes, RFC 1350
	maxTimeout       = 255   // seconds, RFC 2349
	maxWindowSize    = 65535 // blocks, RFC 7440
)

// agreement is what a transfer goes by.
type agreement struct {
	blockSize  int           // bytes
	windowSize int           // blocks
	timeout    time.Duration // before a packet is sent again
	size       int64         // bytes, as the sending side said in tsize; negative if it did not
	granted    []option      // the OACK's options; none means that there was no OACK
}

// limits are what a server grants at most, and what it does unasked.
type limits struct {
	blockSize   int           // bytes
	windowSize  int           // blocks
	windowBytes int           // in a window
	perBlock    int           // bytes that a block counts for beside its payload
	timeout     time.Duration // where the client asks for none
	maxTimeout  time.Duration // longest that is granted
}

// number reads an option's value: decimal digits and nothing else.
func number(value string) (int64, bool) {
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil
}

// negotiate answers a request's options in their order. size is the file's size
// in bytes, negative where it is not known: for a read what is to be sent, for
// a write ignored in favour of what the client says. What may not or cannot be
// granted is left out (RFC 2347); of an option that is given twice the first
// counts.
func negotiate(r request, l limits, size int64) agreement {
	a := agreement{blockSize: defaultBlockSize, windowSize: 1, timeout: l.timeout, size: size}
	if r.op == OpWrite {
		a.size = -1
	}
	asked := 1 // windowsize
	seen := make(map[string]bool)
	for _, o := range r.options {
		n, ok := number(o.value)
		if !ok || seen[o.name] {
			continue
		}
		seen[o.name] = true
		switch o.name {
		case "blksize":
			if n < minBlockSize || n > maxBlockSize {
				continue
			}
			a.blockSize = min(int(n), max(l.blockSize, minBlockSize))
			n = int64(a.blockSize)
		case "windowsize":
			if n < 1 || n > maxWindowSize {
				continue
			}
			asked = int(n)
		case "timeout":
			if n < 1 || n > maxTimeout || time.Duration(n)*time.Second > l.maxTimeout {
				continue
			}
			a.timeout = time.Duration(n) * time.Second
		case "tsize":
			if r.op == OpWrite {
				a.size = n
			} else if n = size; n < 0 {
				continue
			}
		default:
			continue
		}
		a.granted = append(a.granted, option{o.name, strconv.FormatInt(n, 10)})
	}
	// How large a window may be depends on the block size, which may come after
	// it in the request.
	a.windowSize = max(1, min(asked, l.windowSize, l.windowBytes/(a.blockSize+l.perBlock)))
	for i, o := range a.granted {
		if o.name == "windowsize" {
			a.granted[i].value = strconv.Itoa(a.windowSize)
		}
	}
	return a
}

// accept reads a server's OACK to the request that a client made. A value that
// the client did not offer is an error, for which RFC 2347 has code 8.
func accept(r request, oack []option, timeout time.Duration) (agreement, error) {
	a := agreement{blockSize: defaultBlockSize, windowSize: 1, timeout: timeout, size: -1, granted: oack}
	requested := optionMap(r.options)
	for _, o := range oack {
		asked, ok := requested[o.name]
		if !ok {
			return a, fmt.Errorf("the server grants %s=%s, which was not asked for", o.name, o.value)
		}
		n, ok := number(o.value)
		most, _ := number(asked)
		switch o.name {
		case "blksize":
			ok = ok && n >= minBlockSize && n <= most
			a.blockSize = int(n)
		case "windowsize":
			ok = ok && n >= 1 && n <= most
			a.windowSize = int(n)
		case "timeout":
			ok = ok && n == most
			a.timeout = time.Duration(n) * time.Second
		case "tsize":
			ok = ok && (r.op == OpRead || n == most)
			a.size = n
		default:
			ok = true // an option of the caller's own
		}
		if !ok {
			return a, fmt.Errorf("the server answers %s=%s with %q", o.name, asked, o.value)
		}
	}
	return a, nil
}

// optionMap is the record of options; of one given twice the first counts.
func optionMap(options []option) map[string]string {
	m := make(map[string]string, len(options))
	for _, o := range options {
		if _, twice := m[o.name]; !twice {
			m[o.name] = o.value
		}
	}
	return m
}

// sortedOptions is a map's options in a stable order.
func sortedOptions(m map[string]string) []option {
	options := make([]option, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		options = append(options, option{name, m[name]})
	}
	return options
}
