// A caller that knows nothing but the proto files: groups claims, validates codes, reads reasons of errors.
//
//	claims [-stream] ADDRESS < claims.ndjson
//
// Each line of standard input is one inpatient claim as proto3 JSON. Prints a line a claim: its id, the version that
// answered, MDC, DRG, title. With -stream all batches go through one call of StreamGroupDrg.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	pb "codeset.example/claims/codesetv1"
)

// As many claims as the server takes well in one request; its limit is 10,000 unless it is configured otherwise.
const batchSize = 5000

// Every method only reads, so a call may be made again while the server cannot be reached, and for no other reason.
const retry = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s",
	"maxBackoff": "2s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func main() {
	log.SetFlags(0)
	stream := flag.Bool("stream", false, "group all batches in one call")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: claims [-stream] ADDRESS < claims.ndjson")
	}
	// Loopback needs no TLS; elsewhere, grpc.WithTransportCredentials.
	connection, err := grpc.Dial(flag.Arg(0), grpc.WithInsecure(), grpc.WithDefaultServiceConfig(retry),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	claims, err := readClaims()
	if err != nil {
		log.Fatal(err)
	}
	grouping := pb.NewGroupingServiceClient(connection)
	started := time.Now()
	how := groupBatches
	if *stream {
		how = groupStream
	}
	if err := how(grouping, claims); err != nil {
		fail(err)
	}
	fmt.Fprintf(os.Stderr, "grouped in %v\n", time.Since(started).Round(time.Millisecond))

	terminology := pb.NewTerminologyServiceClient(connection)
	if err := validate(terminology, "A00.0"); err != nil {
		fail(err)
	}
	if err := validate(terminology, "A00"); err != nil {
		fail(err)
	}
	// What the server refuses comes with a reason for programs.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = grouping.GroupDrg(ctx, &pb.GroupDrgRequest{Claim: &pb.InpatientClaim{Version: "1.0"}})
	if status.Code(err) != codes.NotFound || reason(err) != "UNKNOWN_VERSION" {
		log.Fatalf("a version that never was: expected NotFound, UNKNOWN_VERSION, got %v", err)
	}
	fmt.Fprintf(os.Stderr, "refused as it should be: %s: %s\n", reason(err), status.Convert(err).Message())
}

func readClaims() ([]*pb.InpatientClaim, error) {
	var claims []*pb.InpatientClaim
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		claim := &pb.InpatientClaim{}
		if err := protojson.Unmarshal(lines.Bytes(), claim); err != nil {
			return nil, fmt.Errorf("line %d is no claim: %w", len(claims)+1, err)
		}
		claims = append(claims, claim)
	}
	return claims, lines.Err()
}

// batches cuts claims into what goes into one request.
func batches(claims []*pb.InpatientClaim) [][]*pb.InpatientClaim {
	var found [][]*pb.InpatientClaim
	for len(claims) > batchSize {
		found = append(found, claims[:batchSize])
		claims = claims[batchSize:]
	}
	return append(found, claims)
}

var options = &pb.DrgOptions{Detail: pb.DrgDetail_DRG_DETAIL_DRG}

// groupBatches makes one call a batch.
func groupBatches(client pb.GroupingServiceClient, claims []*pb.InpatientClaim) error {
	for _, batch := range batches(claims) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		response, err := client.BatchGroupDrg(ctx, &pb.BatchGroupDrgRequest{Claims: batch, Options: options})
		cancel()
		if err != nil {
			return err
		}
		show(response.Results)
	}
	return nil
}

// groupStream makes one call for all batches: sends in one goroutine, reads in another, as the server asks for.
func groupStream(client pb.GroupingServiceClient, claims []*pb.InpatientClaim) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	call, err := client.StreamGroupDrg(ctx)
	if err != nil {
		return err
	}
	go func() {
		for _, batch := range batches(claims) {
			// What goes wrong here is what Recv returns.
			if call.Send(&pb.StreamGroupDrgRequest{Claims: batch, Options: options}) != nil {
				return
			}
		}
		call.CloseSend()
	}()
	for {
		response, err := call.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		show(response.Results)
	}
}

// show prints one line a claim; a claim that cannot be grouped does not fail the batch.
func show(results []*pb.DrgResult) {
	for _, result := range results {
		if result.Error != nil {
			fmt.Printf("%s\terror\t%s\t%s\n", result.ClaimId, result.Error.Code, result.Error.Message)
			continue
		}
		final := result.FinalGrouping
		fmt.Printf("%s\t%s\t%d\t%d\t%s\n", result.ClaimId, result.Version, final.Mdc, final.Drg, final.DrgTitle)
	}
}

func validate(client pb.TerminologyServiceClient, code string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := client.ValidateCode(ctx, &pb.ValidateCodeRequest{System: "icd10cm", Code: code, Date: 20260501})
	if err != nil {
		return err
	}
	found := response.Result
	fmt.Fprintf(os.Stderr, "%s: %v, %s\n", found.Display, found.Status, found.Title)
	return nil
}

// reason returns the stable code of an error (docs/errors.md), empty if the server gave none.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "codeset.v1" {
			return info.Reason
		}
	}
	return ""
}

func fail(err error) {
	log.Fatalf("%s %s: %s", status.Code(err), reason(err), status.Convert(err).Message())
}
