# RI-Face, table 5. What differs from the paper, and why, is in configs/riface/README.md.
method = dict(
    type='RIFace',
    head=dict(
        type='RecognitionModule',
        dropout=0.2,
        loss=dict(type='ArcFaceLoss', scale=64.0, margin=0.45),
    ),
    attention=dict(type='PerceptibilityAttention', reduction=16, projection='tail'),
    attended_weight=0.5,
    regression=dict(type='PerceptibilityRegression', dropout=0.9),
    recognizability=dict(type='RecognizabilityIndex', eps=1e-3, log=True),
    loss_regression=dict(type='IndexRegressionLoss', beta=0.75, loss_weight=5.0),
    loss_diversion=dict(type='IndexDiversionLoss', tau=2.0, sigma_floor=0.1, loss_weight=2.0),
    loss_attention=dict(type='AttentionLoss', loss_weight=1.0),
)
