// Package serialconsole is a board's console: a serial line, or a socket that
// stands for one, read all the time so that no output is lost, kept, and
// waited on.
//
//	port, err := serialconsole.Open(ctx, "/dev/ttyUSB0?baud=115200")
//	console := serialconsole.New(port, serialconsole.Config{})
//	defer console.Close()
//
//	mark := console.Mark()
//	io.WriteString(console, "version\r")
//	match, err := console.Expect(ctx, mark, serialconsole.LineStart("=> "))
//
// One goroutine reads the port from New to Close. Waiting costs nothing: Expect
// is woken by data, sees each byte once, and ends with its context. It looks at
// the console's text: what arrived, less NUL bytes and terminal escape
// sequences, by offsets that never change. Tail shows what arrived unchanged.
//
// The package knows no bootloader; package uboot drives U-Boot over a Console.
package serialconsole
