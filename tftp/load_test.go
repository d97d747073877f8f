package tftp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/boardspec/boardspec/tftp"
)

// nowhere is an upload that keeps nothing.
type nowhere struct{ io.Writer }

func (nowhere) Commit() error  { return nil }
func (nowhere) Discard() error { return nil }

func discard(context.Context, tftp.Request) (tftp.Upload, error) { return nowhere{io.Discard}, nil }

// zeros is a file of so many zero bytes.
type zeros struct {
	io.Reader
	size int64
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func newZeros(size int64) zeros { return zeros{io.LimitReader(zeroReader{}, size), size} }

func (z zeros) Size() int64 { return z.size }

// A transfer allocates when it begins and not with its blocks, in either
// direction, window or mode of ports.
func TestNoAllocationPerBlock(t *testing.T) {
	const small, large = 200, 2200 // blocks
	for _, test := range []struct {
		name   string
		server *tftp.Server
		window int
		write  bool
	}{
		{"read", &tftp.Server{}, 1, false},
		{"read in windows", &tftp.Server{}, 16, false},
		{"read from a single port", &tftp.Server{SinglePort: true}, 16, false},
		{"write", &tftp.Server{}, 1, true},
		{"write in windows", &tftp.Server{}, 16, true},
		{"write to a single port", &tftp.Server{SinglePort: true}, 16, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var size atomic.Int64
			test.server.Create = discard
			test.server.Open = func(context.Context, tftp.Request) (io.Reader, error) { return newZeros(size.Load()), nil }
			addr := serve(t, test.server)
			client := &tftp.Client{WindowSize: test.window}
			transfer := func() {
				var err error
				if test.write {
					_, err = client.Put(t.Context(), addr, "f", newZeros(size.Load()))
				} else {
					_, err = client.Get(t.Context(), addr, "f", io.Discard)
				}
				if err != nil {
					t.Error(err)
				}
			}
			measure := func(blocks int64) float64 {
				size.Store(blocks * 1468)
				return testing.AllocsPerRun(5, transfer)
			}
			few, many := measure(small), measure(large)
			if more := many - few; more > (large-small)/100 {
				t.Errorf("%v allocations for %d blocks, %v for %d", few, small, many, large)
			}
		})
	}
}

// Files of more than 4 GiB pass, in either direction, and their size is not
// that of the memory that is used.
func TestLargeFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("4 GiB take some seconds")
	}
	const size = 4<<30 + 4711
	server := &tftp.Server{Create: discard, MaxUpload: -1, Open: func(context.Context, tftp.Request) (io.Reader, error) { return newZeros(size), nil }}
	addr := serve(t, server)
	client := &tftp.Client{BlockSize: 65464}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	record, err := client.Get(t.Context(), addr, "f", io.Discard)
	if err != nil || record.Size != size || record.TotalSize != size {
		t.Errorf("%v, %v", record, err)
	}
	if err := server.Settled(t.Context()); err != nil {
		t.Error(err)
	}
	if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.SHA256 != record.SHA256 || transfer.Size != size {
		t.Errorf("record %v", transfer)
	}
	record, err = client.Put(t.Context(), addr, "f", newZeros(size))
	if err != nil || record.Size != size {
		t.Errorf("%v, %v", record, err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%d MiB were allocated", used>>20)
	}
}

// together has so many clients read the file f at the same time.
func together(ctx context.Context, clients int, addr netip.AddrPort) error {
	errs := make([]error, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			_, errs[i] = new(tftp.Client).Get(ctx, addr, "f", io.Discard)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func Test64TransfersAtOnce(t *testing.T) {
	for name, server := range map[string]*tftp.Server{"a port each": {}, "a single port": {SinglePort: true}} {
		t.Run(name, func(t *testing.T) {
			server.FS = files("f", 1<<20)
			addr := serve(t, server)
			if err := together(t.Context(), 64, addr); err != nil {
				t.Error(err)
			}
			if err := server.Settled(t.Context()); err != nil {
				t.Error(err)
			}
			for _, transfer := range server.Transfers() {
				if transfer.Outcome != tftp.Complete {
					t.Errorf("record %v", transfer)
				}
			}
		})
	}
}

// 10,000 requests on a real socket, as fast as one client sends them, with
// transfers of others at the same time.
func TestARealFlood(t *testing.T) {
	server := &tftp.Server{FS: files("f", 1<<20), MaxTransfers: 100}
	addr := serveOn(t, server, "0.0.0.0:0")
	addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
	flood, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)})
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 10000 {
			flood.WriteToUDPAddrPort(fmt.Appendf(nil, "\x00\x01name-%d\x00octet\x00", i), addr)
		}
	}()
	for range 20 {
		var got bytes.Buffer
		if _, err := new(tftp.Client).Get(t.Context(), addr, "f", &got); err != nil || got.Len() != 1<<20 {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
	}
	<-done
}
