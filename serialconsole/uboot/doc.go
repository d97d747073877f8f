// Package uboot drives U-Boot over a console: it reaches the prompt, runs
// commands one at a time, and knows what each means by what it prints.
//
//	shell := uboot.New(console, uboot.Config{})
//	err := shell.Interrupt(ctx)               // stop autoboot, or find the prompt
//	output, err := shell.Run(ctx, "version")  // *ExitError if $? is not 0
//	load, err := shell.TFTPBoot(ctx, "uImage", uboot.TFTPOptions{})
//	crc, err := shell.CRC32(ctx, load.Addr, load.Size)
//
// A command is typed in pieces no larger than a UART's FIFO, each checked
// against its echo, and Enter is sent only once all of the line has come back as
// it was typed. Its end and its exit status are told by a marker that neither its
// echo nor its output can spell. A line is ended by CR alone: LF after it would
// be an empty line, which U-Boot takes as "repeat the last command".
//
// On a line that spoils characters a result is right or an error: what was typed
// is repaired before Enter, the status is printed twice, and commands that only
// read are run until two results agree; what cannot be trusted is a *NoiseError.
// A board that crashes or resets ends every command with a *CrashError, also when
// it did so between two commands.
//
// What a U-Boot can do is asked, not configured: Has, and ErrNoCommand of the
// verbs. The prompt is learned. Failed transfers are a *TransferError in the words
// of either network stack.
//
// Every method blocks until U-Boot is at its prompt again, ctx ends, or the
// board crashes or resets, which ends it at once with a *CrashError. After a
// command that ctx ended, Ctrl-C is sent and the next call finds the prompt
// again first. A Shell is for one goroutine at a time.
package uboot
