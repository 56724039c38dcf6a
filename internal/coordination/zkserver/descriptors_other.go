//go:build !unix

package zkserver

func maxDescriptors() int64 { return -1 }
