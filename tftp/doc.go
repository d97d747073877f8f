// Package tftp is a TFTP server and client for tests: each keeps a record of
// every transfer, so that a test can say afterwards what was asked for, what
// was granted, what arrived, and how often it had to be sent.
//
//	server := &tftp.Server{FS: os.DirFS("images")}
//	conn, err := net.ListenPacket("udp", "192.168.7.1:69")
//	go server.Serve(conn)
//	...
//	for _, t := range server.Transfers() {
//		fmt.Println(t) // or t.Outcome, t.Size, t.SHA256, t.Resent
//	}
//	server.Close()
//
// # What is spoken
//
// RFC 1350 (the protocol), RFC 2347 (option negotiation), RFC 2348 (blksize, 8
// to 65464 bytes), RFC 2349 (tsize, timeout) and RFC 7440 (windowsize), for
// read and write requests in the modes octet and netascii, over IPv4 and IPv6.
// Option names and modes are read in any case; unknown options and values out
// of range are left out of the answer, as RFC 2347 asks. Block numbers go on
// with 0 after 65535. Not spoken: mode mail, multicast (RFC 2090).
//
// # Files
//
// A server reads from an [fs.FS] or asks a function per request, and writes to
// what its function Create gives: [Memory] and [Dir] do. [Dir] is a directory
// that no name and no symbolic link leads out of, and is both.
//
// # Boards
//
// U-Boot waits 5 seconds before it asks again, and since 2023.04 does not
// acknowledge a block that it has (net/tftp.c): a server that gives up sooner
// fails transfers that the board would have finished, hence [Server.GiveUp]. Its
// network drivers drop what comes too fast: the window granted is 16 blocks at
// most unless [Server.MaxWindowSize] says otherwise, a receiver that loses
// blocks again and again gets them in smaller bursts, and half the window in its
// next transfers. A board may be content while the last ACK got lost: that is
// the outcome [Unconfirmed].
//
// # Networks
//
// Server and client run on any [net.PacketConn], so as well on a network that is
// not the host's, such as a virtual cable. Between them and it may stand a
// script of [Faults], and [Server.Trace] sees every packet; package pcapng
// writes what it sees for Wireshark.
package tftp
