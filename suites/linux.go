package suites

import (
	"fmt"
	"io/fs"
	"strings"
	"testing/fstest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/serialconsole/uboot"
)

// LinuxFiles names what Linux boots, as in the directory that ci/linux makes. A
// field that is empty skips the specs that need it.
type LinuxFiles struct {
	FS         fs.FS  // is served to the board; nil skips all specs
	Kernel     string // an arm64 Image, as booti takes it
	DeviceTree string // a .dtb
	Initramfs  string // without U-Boot's header; its shell is root's, or root needs no password
	FIT        string // kernel, device tree and initramfs; is loaded to $ramdisk_addr_r, where its kernel must not go to
	FITConfig  string // a configuration of FIT
	PXE        string // a pxelinux configuration that boots without being asked, as in pxelinux.cfg/default
	Bootargs   string // for the kernel, but with PXE; the console is the device tree's
}

// Linux is a pack of specs that boot an arm64 Linux over TFTP to a root shell: from
// a kernel, a device tree and an initramfs with booti, from a FIT with bootm, and
// by PXE. What it boots is in the directory that ci/linux makes, for QEMU's
// machine; for a board of yours give your own:
//
//	var _ = suites.Linux(func() *fixture.Board { return board }, suites.LinuxFiles{
//		FS: os.DirFS("build"), Kernel: "Image", DeviceTree: "board.dtb", Initramfs: "initramfs.cpio.gz",
//	})
//
// The specs are skipped where a file is not there, where the board is not arm64,
// and where U-Boot lacks the command.
func Linux(board func() *fixture.Board, files LinuxFiles) bool {
	return Describe("Linux", func() {
		// require skips the spec unless the board has a command and the files are
		// there.
		require := func(ctx SpecContext, command string, names ...string) {
			GinkgoHelper()
			if files.FS == nil {
				Skip("there is no Linux to boot: give the directory that ci/linux makes")
			}
			for _, name := range names {
				if name == "" {
					Skip("this Linux lacks a file that the spec boots")
				}
				if _, err := fs.Stat(files.FS, name); err != nil {
					Skip("this Linux lacks a file that the spec boots: " + err.Error())
				}
			}
			board().RequireCommand(ctx, "booti") // arm64 and riscv64 have it
			if arch, err := board().UBoot.Getenv(ctx, "arch"); err == nil && arch != "arm" {
				Skip("the Linux is for arm64, and the board is " + arch)
			}
			board().RequireCommand(ctx, command)
		}
		addr := func(ctx SpecContext, variable string) uint64 {
			GinkgoHelper()
			addr, err := board().UBoot.Addr(ctx, variable)
			Expect(err).NotTo(HaveOccurred())
			return addr
		}
		// dtbAddr is where a device tree goes to: not every U-Boot says it.
		dtbAddr := func(ctx SpecContext) uint64 {
			GinkgoHelper()
			addr, err := board().UBoot.Addr(ctx, "fdt_addr_r")
			if err != nil {
				addr, err = board().UBoot.LoadAddr(ctx)
			}
			Expect(err).NotTo(HaveOccurred())
			return addr
		}
		bootargs := func(ctx SpecContext) {
			GinkgoHelper()
			Expect(board().UBoot.Setenv(ctx, "bootargs", files.Bootargs)).To(Succeed())
		}
		// boots boots, and looks around in what then runs.
		boots := func(ctx SpecContext, command string) {
			GinkgoHelper()
			shell := board().BootLinux(ctx, command)
			Expect(shell.Run(ctx, "uname -m")).To(Equal("aarch64"))
			if command != "pxe boot" {
				Expect(shell.Run(ctx, "cat /proc/cmdline")).To(Equal(files.Bootargs))
			}
		}

		It("boots from a kernel, a device tree and an initramfs", func(ctx SpecContext) {
			require(ctx, "booti", files.Kernel, files.DeviceTree, files.Initramfs)
			server := board().ServeTFTP(ctx, files.FS)
			load := func(file string, to uint64) fixture.Load {
				GinkgoHelper()
				load := board().TFTPBoot(ctx, file, uboot.TFTPOptions{Addr: to})
				Expect(load).To(fixture.MatchServed(server))
				return load
			}
			kernel := load(files.Kernel, addr(ctx, "kernel_addr_r"))
			initramfs := load(files.Initramfs, addr(ctx, "ramdisk_addr_r"))
			tree := load(files.DeviceTree, dtbAddr(ctx))
			bootargs(ctx)
			boots(ctx, fmt.Sprintf("booti %x %x:%x %x", kernel.Addr, initramfs.Addr, initramfs.Size, tree.Addr))
		}, SpecTimeout(4*time.Minute))

		DescribeTable("boots from a FIT", func(ctx SpecContext, byName bool) {
			require(ctx, "bootm", files.FIT)
			server := board().ServeTFTP(ctx, files.FS)
			load := board().TFTPBoot(ctx, files.FIT, uboot.TFTPOptions{Addr: addr(ctx, "ramdisk_addr_r")})
			Expect(load).To(fixture.MatchServed(server))
			command := fmt.Sprintf("bootm %x", load.Addr)
			if byName {
				if files.FITConfig == "" {
					Skip("no configuration is named")
				}
				command += "#" + files.FITConfig
			}
			bootargs(ctx)
			boots(ctx, command)
		},
			Entry("with its own configuration", false, SpecTimeout(4*time.Minute)),
			Entry("with a configuration by name", true, SpecTimeout(4*time.Minute)),
		)

		It("does not boot from a FIT with a byte that is wrong", func(ctx SpecContext) {
			require(ctx, "bootm", files.FIT)
			image, err := fs.ReadFile(files.FS, files.FIT)
			Expect(err).NotTo(HaveOccurred())
			image[len(image)/2] ^= 1
			board().ServeTFTP(ctx, fstest.MapFS{files.FIT: {Data: image}})
			load := board().TFTPBoot(ctx, files.FIT, uboot.TFTPOptions{Addr: addr(ctx, "ramdisk_addr_r")})
			var refused *uboot.BootError
			err = board().UBoot.Boot(ctx, fmt.Sprintf("bootm %x", load.Addr), nil)
			Expect(err).To(BeAssignableToTypeOf(refused))
			Expect(err).To(MatchError(ContainSubstring("Bad hash")))
		}, SpecTimeout(2*time.Minute))

		It("boots what its PXE configuration says", func(ctx SpecContext) {
			require(ctx, "pxe", files.PXE)
			// The first name that a board asks for, so that it need not miss any.
			own := files.PXE
			if mac, err := board().UBoot.Getenv(ctx, "ethaddr"); err == nil {
				own = "pxelinux.cfg/01-" + strings.ReplaceAll(strings.ToLower(mac), ":", "-")
			}
			server := board().ServeTFTP(ctx, alias{files.FS, own, files.PXE})
			Expect(board().UBoot.Setenv(ctx, "fdt_addr_r", fmt.Sprintf("%x", dtbAddr(ctx)))).To(Succeed())
			Expect(board().UBoot.PXEGet(ctx)).To(Succeed())
			boots(ctx, "pxe boot")
			Expect(server).To(fixture.HaveServed(own).Once())
		}, SpecTimeout(4*time.Minute))
	})
}

// alias is a tree in which a file has a second name.
type alias struct {
	fs.FS
	second, name string
}

// Open implements fs.FS.
func (a alias) Open(name string) (fs.File, error) {
	if name == a.second {
		name = a.name
	}
	return a.FS.Open(name)
}
