// Provider is a mock of the OpenAI chat API that is never the bottleneck.
//
// It speaks as much HTTP as provider clients need and takes the same prompts as
// bench/upstream.py: `tokens=N rate=R hold=`. With a rate, the text of a token is the time at
// which it was sent, in nanoseconds since the epoch, and answers that start together tick at
// random phases. Without a rate, an answer comes as fast as the connection takes it.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

var prompt = regexp.MustCompile(`tokens=(\d+) rate=(\d+) hold=(\w*)`)

func main() {
	log.SetFlags(0)
	runtime.GOMAXPROCS(1) // one core is enough, and the others belong to what is measured
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listens on %s\n", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection)
	}
}

// serve answers the requests of one connection until the other side closes it.
func serve(connection net.Conn) {
	defer connection.Close()
	requests := bufio.NewReader(connection)
	for {
		tokens, rate, err := asked(requests)
		if err == nil {
			err = answer(connection, tokens, rate)
		}
		if err != nil {
			if !gone(err) {
				log.Print(err)
			}
			return
		}
	}
}

// gone tells whether an error only means that the other side closed the connection.
func gone(err error) bool {
	var network *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network)
}

// asked reads a request and returns the number of tokens and their rate per second; rate 0
// means unpaced.
func asked(requests *bufio.Reader) (tokens, rate int, err error) {
	request, err := http.ReadRequest(requests)
	if err != nil {
		return 0, 0, err
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return 0, 0, err
	}
	found := prompt.FindSubmatch(body)
	if found == nil || len(found[3]) > 0 || !strings.HasSuffix(request.URL.Path, "/chat/completions") {
		return 0, 0, fmt.Errorf("%s %s is not a request that this provider answers: %.200q", request.Method, request.URL.Path, body)
	}
	tokens, err = strconv.Atoi(string(found[1]))
	if err == nil {
		rate, err = strconv.Atoi(string(found[2]))
	}
	return tokens, rate, err
}
