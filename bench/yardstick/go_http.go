// HTTP as a Go program has it: net/http. 13 bytes, an order of JSON that is answered with JSON, and files.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"runtime"
	"strconv"
)

type item struct {
	Article string   `json:"article"`
	Name    string   `json:"name"`
	Pieces  int      `json:"pieces"`
	Price   float64  `json:"price"`
	Gift    bool     `json:"gift"`
	Tags    []string `json:"tags"`
}

type order struct {
	Order    string `json:"order"`
	Customer int    `json:"customer"`
	Items    []item `json:"items"`
	Note     string `json:"note"`
}

type receipt struct {
	Order  string `json:"order"`
	Items  int    `json:"items"`
	Pieces int    `json:"pieces"`
}

var hello = []byte("Hello, world!")

func sayHello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(hello)
}

func takeOrder(w http.ResponseWriter, r *http.Request) {
	var taken order
	if err := json.NewDecoder(r.Body).Decode(&taken); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply := receipt{Order: taken.Order, Items: len(taken.Items)}
	for _, one := range taken.Items {
		reply.Pieces += one.Pieces
	}
	text, err := json.Marshal(reply)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.Write(text)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "")
	folder := flag.String("folder", ".", "below which the files are")
	flag.Parse()

	runtime.GOMAXPROCS(1)
	http.HandleFunc("/", sayHello)
	http.HandleFunc("/orders", takeOrder)
	http.Handle("/files/", http.FileServer(http.Dir(*folder)))
	log.Fatal(http.ListenAndServe(*listen, nil))
}
