// The echo of u32be frames behind TLS 1.3 as a Go program has it: crypto/tls, a goroutine for each connection.
//
// A read takes one record at most; the complete frames of a read are copied to an output buffer and written at once. A
// connection has 4 KiB to read into, more after reads that fill it. Output buffers are shared, so idle connections have
// none.
package main

import (
	"crypto/tls"
	"encoding/binary"
	"flag"
	"log"
	"net"
	"runtime"
	"sync"
)

const (
	headerBytes = 4
	maxFrame    = 1 << 20
	readBytes   = 4 << 10
)

var outputs = sync.Pool{New: func() any { return new([]byte) }}

// Appends the complete frames of in to out. Returns out and what they took of in, or -1 for a bad header.
func echoFrames(out, in []byte) ([]byte, int) {
	at := 0
	for len(in)-at >= headerBytes {
		size := int(binary.BigEndian.Uint32(in[at:]))
		if size > maxFrame {
			return out, -1
		}
		if len(in)-at-headerBytes < size {
			break
		}
		out = append(out, in[at:at+headerBytes+size]...)
		at += headerBytes + size
	}
	return out, at
}

// Returns what is left of in, moved to its front, or false when the connection is beyond use.
func reply(conn net.Conn, in []byte) ([]byte, bool) {
	output := outputs.Get().(*[]byte)
	defer outputs.Put(output)
	out, whole := echoFrames((*output)[:0], in)
	*output = out
	if whole < 0 {
		return in, false
	}
	if whole > 0 {
		if _, err := conn.Write(out); err != nil {
			return in, false
		}
	}
	return in[:copy(in, in[whole:])], true
}

func serve(conn net.Conn) {
	defer conn.Close()
	in := make([]byte, 0, readBytes)
	for {
		got, err := conn.Read(in[len(in):cap(in)])
		if err != nil {
			return
		}
		in = in[:len(in)+got]
		full := len(in) == cap(in)
		fine := false
		if in, fine = reply(conn, in); !fine {
			return
		}
		if full {
			in = append(make([]byte, 0, 2*cap(in)), in...)
		}
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address and port")
	certificate := flag.String("certificate", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	listener, err := tls.Listen("tcp", *address, config)
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on ", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn)
	}
}
