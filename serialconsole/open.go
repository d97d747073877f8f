package serialconsole

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Open opens the port that address names:
//
//	/dev/ttyUSB0?baud=115200   a serial line; its parameters below
//	tcp://host:port            a TCP socket that carries the line as it is
//	unix:///path               a unix socket that does
//
// Parameters of a serial line are baud (115200 if not given), data (bits: 5 to
// 8; 8), parity (none, odd, even; none) and stop (bits: 1, 2; 1). A line is
// locked for as long as it is open; one that another process has open yields
// an error that wraps ErrBusy.
//
// Open blocks until the port is open or ctx ends; ctx does not bound the
// port's life. A Read that waits ends when the port is closed, with an error
// that wraps ErrClosed, and when the other end hangs up, with io.EOF from a
// socket and ErrHangup from a line.
func Open(ctx context.Context, address string) (io.ReadWriteCloser, error) {
	port, err := open(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("serialconsole: open %s: %w", address, err)
	}
	return port, nil
}

func open(ctx context.Context, address string) (io.ReadWriteCloser, error) {
	place, query, _ := strings.Cut(address, "?")
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("its parameters do not read as name=value&name=value: %w", err)
	}
	scheme, rest, isURL := strings.Cut(place, "://")
	switch {
	case !isURL && place != "":
		line, err := parseLine(parameters)
		if err != nil {
			return nil, err
		}
		return openSerial(ctx, place, line)
	case scheme == "tcp", scheme == "unix":
		if err := only(parameters); err != nil {
			return nil, err
		}
		if scheme == "tcp" {
			if _, _, err := net.SplitHostPort(rest); err != nil {
				return nil, fmt.Errorf("%w; it reads tcp://host:port", err)
			}
		}
		return new(net.Dialer).DialContext(ctx, scheme, rest)
	}
	return nil, fmt.Errorf("an address is the path of a serial line, tcp://host:port or unix:///path")
}

// line is how bits are sent on a serial line.
type line struct {
	baud   int
	data   int
	parity string
	stop   int
}

func parseLine(parameters url.Values) (line, error) {
	l := line{baud: 115200, data: 8, parity: "none", stop: 1}
	if err := only(parameters, "baud", "data", "parity", "stop"); err != nil {
		return l, err
	}
	number := func(name string, into *int, low, high int) error {
		text := parameters.Get(name)
		if text == "" {
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%s=%s is not a number from %d to %d", name, text, low, high)
		}
		*into = n
		return nil
	}
	if err := number("baud", &l.baud, 50, 4_000_000); err != nil {
		return l, err
	}
	if err := number("data", &l.data, 5, 8); err != nil {
		return l, err
	}
	if err := number("stop", &l.stop, 1, 2); err != nil {
		return l, err
	}
	if parity := parameters.Get("parity"); parity != "" {
		if !slices.Contains([]string{"none", "odd", "even"}, parity) {
			return l, fmt.Errorf("parity=%s is none of none, odd and even", parity)
		}
		l.parity = parity
	}
	return l, nil
}

func only(parameters url.Values, known ...string) error {
	for name := range parameters {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return fmt.Errorf("unknown parameter %s; there are none", name)
			}
			return fmt.Errorf("unknown parameter %s; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}
