// Package linux drives a Linux over a console: from its first words to a root
// shell, commands with their output and status, and back to U-Boot.
//
//	err := uboot.Boot(ctx, "booti $kernel_addr_r $ramdisk_addr_r $fdtcontroladdr", nil)
//	shell := linux.New(console, linux.Config{User: "root"})
//	err = shell.Login(ctx)
//	output, err := shell.Run(ctx, "uname -r")   // *ExitError if $? is not 0
//	err = shell.Reboot(ctx, uboot)              // at U-Boot's prompt again
//
// A command's output is what stands between two markers that neither its echo
// nor its output can spell, so that neither prompts nor the terminal's echo
// matter. A kernel that panics or oopses ends every wait with a *CrashError.
//
// Every method blocks until it is done, ctx ends or the kernel crashes. After a
// command that ctx ended, Ctrl-C is sent and the next call finds the shell again
// first. A Shell is for one goroutine at a time.
package linux
