"""Datasets, from files on disk to batches for a method.

Descriptions and files of datasets::

    datasets       the registry, and the class that describes a dataset
    published      the built-in datasets with their published counts
    sources        the archives that they are downloaded from
    folders        where datasets lie on this machine
    layout         the field's folder layout, its paths and records
    pair_lists     the lists of pairs; metadata: the labels of images; listing: both together
    writing        a dataset written to disk
    integrity      checks that the files agree with each other
    fingerprint    digests of the files
    demo_world     the rendered demo dataset; demo_drawing, demo_finishes: its images

Loaded data, without and with pixels::

    loading            a dataset loaded by its name
    splits             the label space, the splits and the candidate pairs of the closed world
    image_transforms   one image opened, resized, cropped, augmented and normalised
    image_check        every image decoded once before training
    image_set          the images of a split as a torch dataset and as batches
    image_cache        decoded images kept on disk; feature_cache: features kept on disk; cache: the folder of both
    batches            what a method is trained and evaluated with: batches of pixels or of features
"""
