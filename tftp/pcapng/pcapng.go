// Package pcapng writes the packets of a TFTP server or client to a capture file
// that Wireshark, tshark and tcpdump read. It needs no privileges: what it gets
// is the UDP payload, and it makes the IP and UDP headers itself.
//
//	file, err := os.Create("transfer.pcapng")
//	capture, err := pcapng.NewWriter(file)
//	server := &tftp.Server{FS: files, Trace: capture.Packet}
//	...
//	server.Close()
//	err = capture.Flush()
//
// The packets are those that were on the wire: with a script of faults what is
// left after it has dropped, changed or doubled what this side sent, and what
// arrived before it did so to what this side received. IP fragments do not show:
// a large block is one packet. A server that listens on all addresses does not
// know on which one a packet came: it stands there as 0.0.0.0 or ::.
package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/boardspec/boardspec/tftp"
)

// Writer writes a capture file. Its methods may be called concurrently.
type Writer struct {
	mu     sync.Mutex // guards all below
	writer *pcapgo.NgWriter
	packet []byte
	err    error // the first one
}

// NewWriter begins a capture file on w. Flush it when no more packets come;
// closing w is left to the caller.
func NewWriter(w io.Writer) (*Writer, error) {
	writer, err := pcapgo.NewNgWriter(w, layers.LinkTypeRaw)
	if err != nil {
		return nil, fmt.Errorf("pcapng: %w", err)
	}
	return &Writer{writer: writer}, nil
}

// Packet writes a packet. It fits [tftp.Server.Trace] and [tftp.Client.Trace].
// After an error it does nothing; Flush returns the error.
func (w *Writer) Packet(p tftp.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	from, to := p.Peer, p.Local
	if p.Sent {
		from, to = to, from
	}
	w.packet = appendDatagram(w.packet[:0], from, to, p.Data)
	w.err = w.writer.WritePacket(gopacket.CaptureInfo{
		Timestamp: p.Time, CaptureLength: len(w.packet), Length: len(w.packet),
	}, w.packet)
}

// Flush writes what is buffered. It returns the first error since NewWriter.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.writer.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("pcapng: %w", w.err)
	}
	return nil
}

const (
	udpProtocol = 17
	hopLimit    = 64
	udpHeader   = 8
)

// appendDatagram appends an IP packet with a UDP datagram (RFC 791, RFC 8200,
// RFC 768). All fields are big-endian.
func appendDatagram(packet []byte, from, to netip.AddrPort, payload []byte) []byte {
	source, destination := from.Addr().Unmap(), to.Addr().Unmap()
	if source.Is4() != destination.Is4() { // one is that of a socket on all addresses
		source, destination = sameFamily(source, destination)
	}
	length := udpHeader + len(payload)
	start := len(packet)
	if source.Is4() {
		packet = append(packet, 0x45, 0)
		packet = binary.BigEndian.AppendUint16(packet, uint16(20+length))
		packet = append(packet, 0, 0, 0x40, 0, hopLimit, udpProtocol, 0, 0) // do not fragment
		packet = append(packet, source.AsSlice()...)
		packet = append(packet, destination.AsSlice()...)
		binary.BigEndian.PutUint16(packet[start+10:], ^fold(sum(0, packet[start:])))
	} else {
		packet = append(packet, 0x60, 0, 0, 0)
		packet = binary.BigEndian.AppendUint16(packet, uint16(length))
		packet = append(packet, udpProtocol, hopLimit)
		packet = append(packet, source.AsSlice()...)
		packet = append(packet, destination.AsSlice()...)
	}
	datagram := len(packet)
	packet = binary.BigEndian.AppendUint16(packet, from.Port())
	packet = binary.BigEndian.AppendUint16(packet, to.Port())
	packet = binary.BigEndian.AppendUint16(packet, uint16(length))
	packet = append(packet, 0, 0)
	packet = append(packet, payload...)
	check := sum(uint32(udpProtocol)+uint32(length), source.AsSlice())
	check = sum(sum(check, destination.AsSlice()), packet[datagram:])
	if checksum := ^fold(check); checksum != 0 {
		binary.BigEndian.PutUint16(packet[datagram+6:], checksum)
	} else {
		binary.BigEndian.PutUint16(packet[datagram+6:], 0xffff) // 0 would say that there is none
	}
	return packet
}

// sameFamily makes the unspecified one of two addresses one of the other's
// family.
func sameFamily(a, b netip.Addr) (netip.Addr, netip.Addr) {
	unspecified := func(like netip.Addr) netip.Addr {
		if like.Is4() {
			return netip.IPv4Unspecified()
		}
		return netip.IPv6Unspecified()
	}
	if a.IsUnspecified() || !a.IsValid() {
		return unspecified(b), b
	}
	return a, unspecified(a)
}

// sum adds data to a checksum of RFC 1071, fold ends it.
func sum(start uint32, data []byte) uint32 {
	total := uint64(start)
	for len(data) >= 2 {
		total += uint64(binary.BigEndian.Uint16(data))
		data = data[2:]
	}
	if len(data) == 1 {
		total += uint64(data[0]) << 8
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint32(total)
}

func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
