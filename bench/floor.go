package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// The floor is what the same bytes cost a program that does nothing else: off the socket,
// CRC-32C, into a file. It tells the machine's part of a figure from the server's.

// floorFrame is the size of a frame of the floor; about a batch.
const floorFrame = 1_000_000

func floorCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "floor-server FILE",
		Hidden: true, // measureFloor runs it as a process of its own
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return serveFloor(args[0]) },
	}
}

func serveFloor(path string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	frame := make([]byte, floorFrame)
	answer := make([]byte, 4)
	for at := int64(0); ; at += floorFrame {
		if _, err := io.ReadFull(conn, frame); err != nil {
			return errors.Join(conn.Close(), file.Close()) // the measuring side has gone
		}
		binary.BigEndian.PutUint32(answer, crc32.Checksum(frame, table))
		if _, err := file.WriteAt(frame, at); err != nil {
			return err
		}
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

// measureFloor returns the processor seconds per GiB of the floor, and megabytes per second.
func measureFloor(ctx context.Context, dir string, volume int64) (cost, rate float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	path := filepath.Join(dir, "floor")
	command := exec.CommandContext(ctx, self, "floor-server", path)
	output, err := command.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := command.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, command.Process.Kill(), os.Remove(path)); _ = command.Wait() }()
	addr, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		return 0, 0, err
	}
	conn, err := net.Dial("tcp", addr[:len(addr)-1])
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	if err := settleMachine(volume); err != nil {
		return 0, 0, err
	}
	before, err := processorTime(command.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	frames := volume / floorFrame
	if err := sendFloor(conn, int(frames)); err != nil {
		return 0, 0, err
	}
	wall := time.Since(began)
	after, err := processorTime(command.Process.Pid)
	return perGiB(after-before, frames*floorFrame), megabytesPerSecond(frames*floorFrame, wall), err
}

// settleMachine gives each measurement the same start: nothing waits to be written to the disk,
// and the memory that the page cache is about to take has been touched just before. On a
// virtual machine whose host takes unused memory back, the first touch of a page costs several
// times what the servers do with it, and falls on whoever comes first.
func settleMachine(bytes int64) error {
	unix.Sync()
	const slack = 256 << 20
	memory, err := unix.Mmap(-1, 0, int(bytes+slack), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d MiB of memory: %w", (bytes+slack)>>20, err)
	}
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE) // small pages, as the page cache takes them; a kernel without huge ones refuses
	for at := 0; at < len(memory); at += os.Getpagesize() {
		memory[at] = 1
	}
	return unix.Munmap(memory)
}

// measureDisk returns what the disk allows whoever fsyncs each write: how often a second, and
// how many megabytes, as many files as there are partitions are appended to and fdatasynced side
// by side, each by itself.
func measureDisk(dir string, files, size int, during time.Duration) (syncs, rate float64, err error) {
	dir, err = os.MkdirTemp(dir, "disk")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var count atomic.Int64
	errs := make([]error, files)
	var wait sync.WaitGroup
	began := time.Now()
	for i := range files {
		wait.Go(func() {
			errs[i] = appendAndSync(filepath.Join(dir, fmt.Sprint(i)), size, began.Add(during), &count)
		})
	}
	wait.Wait()
	wall := time.Since(began)
	return float64(count.Load()) / wall.Seconds(), megabytesPerSecond(count.Load()*int64(size), wall), errors.Join(errs...)
}

func appendAndSync(path string, size int, end time.Time, count *atomic.Int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	data := make([]byte, size)
	for err == nil && time.Now().Before(end) {
		if _, err = file.Write(data); err == nil {
			err = unix.Fdatasync(int(file.Fd()))
			count.Add(1)
		}
	}
	return errors.Join(err, file.Close())
}

// measureCreation is how long it takes to do nothing but make the directories and empty files
// of that many partitions. A file system may take its time for that: ext4 passes over each inode
// freed in the last minutes, one by one, whenever it looks for a new one.
func measureCreation(dir string, partitions int) (time.Duration, error) {
	began := time.Now()
	for i := range partitions {
		partition := filepath.Join(dir, "creation", fmt.Sprint("idle-", i))
		if err := os.MkdirAll(partition, 0o755); err != nil {
			return 0, err
		}
		for _, name := range []string{"00000000000000000000.log", "00000000000000000000.index", "00000000000000000000.timeindex", "partition.metadata"} {
			file, err := os.Create(filepath.Join(partition, name))
			if err != nil {
				return 0, err
			}
			if err := file.Close(); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}

func sendFloor(conn net.Conn, frames int) error {
	frame := make([]byte, floorFrame)
	failed := make(chan error, 1)
	go func() {
		for range frames {
			if _, err := conn.Write(frame); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	_, err := io.CopyN(io.Discard, conn, 4*int64(frames))
	return errors.Join(err, <-failed)
}
