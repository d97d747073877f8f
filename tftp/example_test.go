package tftp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"testing/fstest"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

// A server on a free port, a client that reads from it, and what the server
// knows afterwards.
func Example() {
	server := &tftp.Server{FS: fstest.MapFS{"boot/uImage": {Data: make([]byte, 5000)}}}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(conn)
	defer server.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var image bytes.Buffer
	address := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := new(tftp.Client).Get(ctx, address, "/boot/uImage", &image); err != nil {
		log.Fatal(err)
	}
	if err := server.Settled(ctx); err != nil {
		log.Fatal(err)
	}
	for _, t := range server.Transfers() {
		fmt.Printf("%v %s: %v, %d bytes in %d blocks, crc32 %08x\n", t.Op, t.Filename, t.Outcome, t.Size, t.Blocks, t.CRC32)
	}
	// Output:
	// read /boot/uImage: complete, 5000 bytes in 4 blocks, crc32 d8e50ea8
}

// Content made for each request.
func ExampleServer_open() {
	server := &tftp.Server{Open: func(_ context.Context, r tftp.Request) (io.Reader, error) {
		if r.Filename != "uEnv.txt" {
			return nil, &tftp.Error{Code: tftp.CodeFileNotFound, Message: "only uEnv.txt is here"}
		}
		return strings.NewReader("board=" + r.Peer.Addr().String() + "\n"), nil
	}}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(conn)
	defer server.Close()

	var text strings.Builder
	client := &tftp.Client{}
	address := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	_, err = client.Get(context.Background(), address, "uEnv.txt", &text)
	fmt.Print(text.String(), err, "\n")
	_, err = client.Get(context.Background(), address, "uImage", &text)
	fmt.Println(strings.ReplaceAll(err.Error(), address.String(), "ADDRESS"))
	// Output:
	// board=127.0.0.1
	// <nil>
	// tftp: read uImage: server ADDRESS: request: the peer sent error 1: only uEnv.txt is here
}

// Uploads are kept in memory until they are asked for.
func ExampleMemory() {
	uploads := new(tftp.Memory)
	server := &tftp.Server{Create: uploads.Create, MaxUpload: 1 << 20}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(conn)
	defer server.Close()

	address := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := new(tftp.Client).Put(context.Background(), address, "log/boot", strings.NewReader("U-Boot 2025.01")); err != nil {
		log.Fatal(err)
	}
	data, ok := uploads.Bytes("log/boot")
	fmt.Printf("%q %v\n", data, ok)
	// Output:
	// "U-Boot 2025.01" true
}

// The second block is lost once, and the record says so.
func ExampleFaults() {
	server := &tftp.Server{
		FS:      fstest.MapFS{"uImage": {Data: make([]byte, 3000)}},
		Timeout: 300 * time.Millisecond,
		Faults:  &tftp.Faults{Script: []tftp.Fault{{Kind: tftp.OpData, Block: 2, Nth: 1, Do: tftp.Drop()}}},
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(conn)
	defer server.Close()

	address := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	ctx := context.Background()
	if _, err := (&tftp.Client{NoOptions: true}).Get(ctx, address, "uImage", io.Discard); err != nil {
		log.Fatal(err)
	}
	if err := server.Settled(ctx); err != nil {
		log.Fatal(err)
	}
	t := server.Transfers()[0]
	fmt.Println(t.Outcome, t.Resent, t.Timeouts)
	fmt.Println(t.Faults[0])
	// Output:
	// complete 1 1
	// sent DATA 2 (512 bytes): dropped
}
