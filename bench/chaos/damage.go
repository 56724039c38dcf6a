package main

// damage is what was done to one file.
type damage struct {
	path   string
	offset int64
	what   string
}
