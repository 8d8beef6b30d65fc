"""Heads that are trained apart on one embedding, and joined to one head: the mean of their answers.

Deep ensembles, Lakshminarayanan et al. 2017. Differs: the mean is of the members' logits, not of their
posteriors, so that three layers compute it at once and nothing else needs to know of the members. Shapes by
letter: K members, H units of FC 1, A auxiliary outputs, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from train.speaker_head import SpeakerHead


def joined(members: Sequence[SpeakerHead]) -> SpeakerHead:
    """Return the head whose emotion logits are the mean of the members'.

    FC 1 has the units of all members. The emotion logits of member k are P_k a_k + c_k for its auxiliary
    logits a_k, P_k being (C, A). With P, the mean of all P_k, as the last layer, the auxiliary logits

        a = mean of a_k + P^+ (P_k - P) a_k

    give the mean of the emotion logits: P P^+ = 1, since P has at least as many columns as rows. They are the
    mean of the members' own, with the smallest change that does so. The weights of FC 1, nearly all there
    are, are rounded to float16, in which they are stored.

    Args:
        members: K > 0 heads with the same sizes.
    """
    if len(members) == 1:
        return members[0]
    arch = members[0].arch
    head = SpeakerHead(replace(arch, fully_connected=len(members) * arch.fully_connected))
    with torch.no_grad():
        last = _mean([member.transfer.weight.double() for member in members])
        inverse = torch.linalg.pinv(last)
        weights, biases = [], []
        for member in members:
            second = member.meta.fc2
            change = inverse @ (member.transfer.weight.double() - last)
            weights.append(second.weight + change @ second.weight.double())
            biases.append(second.bias + change @ second.bias.double())
        head.meta.fc1.weight.copy_(torch.cat([member.meta.fc1.weight for member in members]).half())
        head.meta.fc1.bias.copy_(torch.cat([member.meta.fc1.bias for member in members]))
        head.meta.fc2.weight.copy_(torch.cat(weights, dim=1) / len(members))
        head.meta.fc2.bias.copy_(_mean(biases))
        head.transfer.weight.copy_(last)
        head.transfer.bias.copy_(_mean([member.transfer.bias for member in members]))
    return head.eval()


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(tensors)).mean(dim=0)
