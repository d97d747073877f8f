"""Runs a command N times on a U-Boot whose console is a unix socket, as one
does with pexpect, and prints the seconds that it took."""
import socket
import sys
import time

from pexpect import fdpexpect

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
console = fdpexpect.fdspawn(connection.fileno(), timeout=30)
console.expect("autoboot")
console.send("\x03")
console.expect_exact("=> ")
start = time.monotonic()
for i in range(int(sys.argv[2])):
    console.send("echo %d\r" % i)
    console.expect_exact("echo %d\r\n" % i)
    console.expect_exact("\r\n=> ")
    assert console.before == b"%d" % i, console.before
print(time.monotonic() - start)
