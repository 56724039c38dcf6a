package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// CreateDelegationToken, RenewDelegationToken, ExpireDelegationToken and
// DescribeDelegationToken (keys 38 to 41): tokens are for clients that have authenticated, and
// nobody can yet.

func (b *Broker) registerCreateDelegationToken() {
	b.server.Handle(38, 0, 3, b.handleCreateDelegationToken)
}

func (b *Broker) registerRenewDelegationToken() {
	b.server.Handle(39, 0, 2, b.handleRenewDelegationToken)
}

func (b *Broker) registerExpireDelegationToken() {
	b.server.Handle(40, 0, 2, b.handleExpireDelegationToken)
}

func (b *Broker) registerDescribeDelegationToken() {
	b.server.Handle(41, 0, 3, b.handleDescribeDelegationToken)
}

func (b *Broker) handleCreateDelegationToken(request *wire.Request) {
	body := request.Body.(*kmsg.CreateDelegationTokenRequest)
	response := respond[*kmsg.CreateDelegationTokenResponse](request)
	response.ErrorCode = kerr.DelegationTokenRequestNotAllowed.Code
	response.PrincipalType, response.PrincipalName = "User", "ANONYMOUS"
	if body.OwnerPrincipalName != nil && *body.OwnerPrincipalName != "" {
		response.PrincipalType, response.PrincipalName = textOrEmpty(body.OwnerPrincipalType), *body.OwnerPrincipalName
	}
	response.TokenRequesterPrincipalType, response.TokenRequesterPrincipalName = "User", "ANONYMOUS"
	response.IssueTimestamp, response.ExpiryTimestamp, response.MaxTimestamp = -1, -1, -1
	response.HMAC = []byte{}
	request.Reply(response)
}

func (b *Broker) handleRenewDelegationToken(request *wire.Request) {
	response := respond[*kmsg.RenewDelegationTokenResponse](request)
	response.ErrorCode, response.ExpiryTimestamp = kerr.DelegationTokenRequestNotAllowed.Code, -1
	request.Reply(response)
}

func (b *Broker) handleExpireDelegationToken(request *wire.Request) {
	response := respond[*kmsg.ExpireDelegationTokenResponse](request)
	response.ErrorCode, response.ExpiryTimestamp = kerr.DelegationTokenRequestNotAllowed.Code, -1
	request.Reply(response)
}

func (b *Broker) handleDescribeDelegationToken(request *wire.Request) {
	response := respond[*kmsg.DescribeDelegationTokenResponse](request)
	response.ErrorCode = kerr.DelegationTokenRequestNotAllowed.Code
	request.Reply(response)
}
